import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { readJson } from "../http/read-json.ts";
import { RequestEnd } from "../http/request-end.ts";
import { settingsOf } from "../settings.ts";
import { admit } from "./admit.ts";
import { answer } from "./answer.ts";
import type { Endpoint, GenerationRequest } from "./endpoint.ts";
import { answerAgain, idempotencyOf } from "./idempotency.ts";

/** Handler of an endpoint that generates: admits the request, has a service answer it, and charges what it cost. */
export function generate<T extends GenerationRequest>(endpoint: Endpoint<T>) {
  return async (c: Context<AppEnv>): Promise<Response> => {
    const end = new RequestEnd(c.var.client, settingsOf(c.env).requestTimeoutMs);
    const run = async (): Promise<Response> => {
      const request = await readJson(c, endpoint.schema);
      const admitted = await admit(c, endpoint, request, end, await idempotencyOf(c, request));
      if (!("answered" in admitted)) return await answer(c, admitted, end);
      end.close();
      return answerAgain(c, admitted);
    };
    const response = run().catch((error: unknown) => {
      end.close();
      throw end.explain(error);
    });
    // A client that leaves must not take the accounting with it.
    c.executionCtx.waitUntil(response.catch(() => undefined));
    return await response;
  };
}
