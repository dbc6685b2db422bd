import type { Engine, EngineAccount, EngineFinishReason, EngineRequest } from "../types.ts";

/** A whole answer. */
export interface Answer {
  tokens: number[];
  layers: number[];
  reason: EngineFinishReason | undefined;
  account: EngineAccount | undefined;
}

/** Runs a request to its end. @param leaveAfter tokens after which the reader leaves; what was read until then comes back */
export async function collect(engine: Engine, request: EngineRequest, leaveAfter = Infinity): Promise<Answer> {
  const answer: Answer = { tokens: [], layers: [], reason: undefined, account: undefined };
  for await (const event of engine.generate(request)) {
    if (event.type === "finished") {
      answer.reason = event.reason;
      answer.account = event.account;
      continue;
    }
    answer.tokens.push(event.token);
    answer.layers.push(event.layers);
    if (answer.tokens.length >= leaveAfter) break;
  }
  return answer;
}
