/** How long an answer may become. */
export interface AnswerLimit {
  /** To be sent to the service; undefined leaves it to the context. */
  maxTokens: number | undefined;
  /** No answer is longer, tokens. */
  atMost: number;
  /**
   * The client named no limit: should `maxTokens` not fit the context beside the prompt, the room that is left is smaller
   * than the plan's limit and may be used up.
   */
  mayUseRoom: boolean;
}

/**
 * Clips an answer to the plan.
 * @param wish the client's own limit
 * @param plan the plan's limit
 * @param contextLength tokens of prompt and answer together
 */
export function answerLimit(wish: number | null | undefined, plan: number, contextLength: number): AnswerLimit {
  if (wish != null) {
    const maxTokens = Math.min(wish, plan);
    return { maxTokens, atMost: maxTokens, mayUseRoom: false };
  }
  // A prompt leaves less than the whole context: the service would only refuse.
  const fits = plan < contextLength;
  return { maxTokens: fits ? plan : undefined, atMost: Math.min(plan, contextLength), mayUseRoom: fits };
}

/** The limit of an answer that the budget has shortened to `maxTokens`, if it has. */
export function clippedLimit(limit: AnswerLimit, maxTokens: number | undefined): AnswerLimit {
  return maxTokens === undefined ? limit : { ...limit, maxTokens, atMost: maxTokens };
}
