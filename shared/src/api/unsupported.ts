import { z } from "zod";

/**
 * A field of OpenAI's that Fathom does not serve: values that ask for nothing are accepted, any other would change the
 * answer and is refused by name.
 * @param isOff whether a value that is not null asks for nothing
 * @param allowed what is allowed, for the message
 */
function off(isOff: (value: unknown) => boolean, allowed: string) {
  const error = `is not supported; ${allowed}`;
  return z
    .unknown()
    .refine((value) => value == null || isOff(value), { error })
    .optional();
}

const is = (...values: readonly unknown[]) => {
  const spelled = values.map((value) => JSON.stringify(value)).join(" or ");
  return off((value) => values.includes(value), `leave it out or send ${spelled}`);
};

const nothing = off(() => false, "leave it out");
const emptyList = off((value) => Array.isArray(value) && value.length === 0, "leave it out or send []");
const emptyMap = off(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length === 0,
  "leave it out or send {}",
);
const plainText = off(
  (value) => typeof value === "object" && value !== null && "type" in value && value.type === "text",
  'leave it out or send {"type": "text"}',
);
const textOnly = off(
  (value) => Array.isArray(value) && value.every((item) => item === "text"),
  'leave it out or send ["text"]',
);

/** Of both endpoints. */
const Either = { frequency_penalty: is(0), presence_penalty: is(0), logit_bias: emptyMap };

/** Of `/v1/chat/completions`. Without tools to choose from, every wish not to be made to call one is granted. */
export const UnsupportedInChat = {
  ...Either,
  logprobs: is(false),
  top_logprobs: is(0),
  tools: emptyList,
  tool_choice: is("none", "auto"),
  functions: emptyList,
  function_call: is("none", "auto"),
  response_format: plainText,
  modalities: textOnly,
  audio: nothing,
  web_search_options: nothing,
};

/** Of `/v1/completions`. */
export const UnsupportedInCompletion = {
  ...Either,
  logprobs: is(false),
  best_of: is(1),
  suffix: is(""),
  echo: is(false),
};
