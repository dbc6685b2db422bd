import { readFileSync } from "node:fs";
import { openGguf } from "@fathom/gpu-service/checkpoint/gguf/open-gguf.ts";
import { TextModel } from "@fathom/gpu-service/text/text-model.ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

/** What Hugging Face transformers made of six chat prompts; see test/fixtures/README.md. */
interface Reference {
  cases: { prompt: string; rendered: string; token_ids: number[]; greedy40: number[]; greedy40_text: string }[];
}

const fixture = new URL("../fixtures/smollm2-reference.json", import.meta.url);
const reference: Reference = JSON.parse(readFileSync(fixture, "utf8"));
const gguf = process.env.FATHOM_TEST_GGUF;
if (!gguf) console.warn("Skipped: set FATHOM_TEST_GGUF to the path of SmolLM2-135M-Instruct.Q4_1.gguf.");

describe.skipIf(!gguf)("SmolLM2's tokenizer, rebuilt from GGUF metadata, against Hugging Face", () => {
  let source: Awaited<ReturnType<typeof openGguf>>;
  let text: TextModel;

  beforeAll(async () => {
    source = await openGguf(gguf ?? "");
    const file = (name: string): unknown => JSON.parse(String(source.files.get(name)));
    text = TextModel.from(file("tokenizer.json"), file("tokenizer_config.json"));
  });
  afterAll(() => source.close());

  test.each(reference.cases)("renders and encodes: $prompt", async ({ prompt, rendered, token_ids }) => {
    const messages = [{ role: "user" as const, content: prompt }];
    expect(text.renderChat(messages)).toBe(rendered);
    expect(await text.tokens(messages)).toEqual(token_ids);
  });

  test.each(reference.cases)("decodes the answer to: $prompt", ({ greedy40, greedy40_text }) => {
    const detokenizer = text.detokenizer({ continues: false });
    const decoded = greedy40.map((id) => detokenizer.push(id)).join("") + detokenizer.end();
    expect(decoded.trimEnd()).toBe(greedy40_text.trimEnd());
  });

  test("splits every kind of digit on its own, as Rust's Digits does", () => {
    const ids = text.encode("x²③٣ 42");
    const alone = ["²", "③", "٣"].flatMap((digit) => text.encode(digit));
    expect(ids).toEqual([...text.encode("x"), ...alone, ...text.encode(" "), ...text.encode("4"), ...text.encode("2")]);
  });
});
