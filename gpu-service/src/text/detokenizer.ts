import type { DecoderStage } from "./decoder-stages.ts";

/** Turns the tokens of one answer into text as they come. What was returned is final: the pieces join to the whole text. */
export class Detokenizer {
  readonly #tokenText: (token: number) => string | undefined;
  readonly #stages: readonly DecoderStage[];

  /**
   * @param tokenText vocabulary entry of a token, undefined for one that has no text (special tokens, unknown ids)
   * @param stages from vocabulary entries to text; used by this answer alone
   */
  constructor(tokenText: (token: number) => string | undefined, stages: readonly DecoderStage[]) {
    this.#tokenText = tokenText;
    this.#stages = stages;
  }

  /** Text that this token completes; empty while a character is incomplete. */
  push(token: number): string {
    const text = this.#tokenText(token);
    return text === undefined ? "" : this.#run([text], 0);
  }

  /** The rest: U+FFFD if the answer ends inside a character. */
  end(): string {
    return this.#stages.map((stage, i) => this.#run(stage.end(), i + 1)).join("");
  }

  #run(tokens: string[], from: number): string {
    let current = tokens;
    for (const stage of this.#stages.slice(from)) current = current.flatMap((token) => stage.push(token));
    return current.join("");
  }
}
