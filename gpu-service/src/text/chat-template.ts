import { ApiError, type ChatMessage, contentText } from "@fathom/shared";
import { Template } from "@huggingface/jinja";

/** A model's chat format: the Jinja template of its tokenizer_config.json. */
export class ChatTemplate {
  readonly #template: Template;
  readonly #variables: Readonly<Record<string, string>>;

  /**
   * @param source Jinja source
   * @param variables special tokens that the template may name, such as `bos_token`
   * @throws SyntaxError or Error when the source is not Jinja
   */
  constructor(source: string, variables: Readonly<Record<string, string>>) {
    this.#template = new Template(source);
    this.#variables = variables;
  }

  /**
   * Renders a conversation up to where the assistant's answer begins. `developer` is rendered as `system`, its older name.
   * @throws ApiError `invalid_request` when the template refuses the conversation.
   */
  render(messages: readonly ChatMessage[]): string {
    const plain = messages.map(({ role, content }) => ({
      role: role === "developer" ? "system" : role,
      content: contentText(content),
    }));
    try {
      return this.#template.render({ ...this.#variables, messages: plain, add_generation_prompt: true });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new ApiError("invalid_request", `'messages': the model's chat template refuses them: ${reason}`, {
        param: "messages",
        cause: error,
      });
    }
  }
}
