import { ApiError } from "@fathom/shared";
import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { sha256 } from "../auth/api-key.ts";
import type { IdempotentRequest } from "../ledger/kept-answers.ts";
import { IDEMPOTENCY_HEADER } from "../ledger/refusal-error.ts";
import type { Answered } from "./admit.ts";
import type { GenerationRequest } from "./endpoint.ts";

/** The draft's form is a quoted string; most clients send the bare one. */
const KEY = /^(?:"([\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e][\x21-\x7e]{0,254}))$/;

/**
 * The idempotency key of a request and the fingerprint of what it asks for, if it has one.
 * @throws ApiError `invalid_request` for a key of another form, or with a stream: it cannot be sent again.
 */
export async function idempotencyOf(
  c: Context<AppEnv>,
  request: GenerationRequest,
): Promise<IdempotentRequest | undefined> {
  const header = c.req.header(IDEMPOTENCY_HEADER);
  if (header === undefined) return undefined;
  const [, quoted, bare] = KEY.exec(header) ?? [];
  const key = quoted ?? bare;
  const param = IDEMPOTENCY_HEADER;
  if (key === undefined) {
    throw new ApiError("invalid_request", `'${param}': must be 1 to 255 visible ASCII characters`, { param });
  }
  if (request.stream === true) {
    throw new ApiError("invalid_request", `'${param}': goes with whole answers only, not with "stream": true`, {
      param,
    });
  }
  const digest = await sha256(`${c.req.path}\n${await c.req.text()}`);
  return { key, fingerprint: digest.toHex() };
}

/** Gives an answer again as it was given, for nothing. */
export function answerAgain(c: Context<AppEnv>, { answered }: Answered): Response {
  const { body, depth, reason, requestId } = answered;
  c.var.log.add({ replayOf: requestId });
  c.header("idempotent-replayed", "true");
  c.header("x-fathom-depth", String(depth));
  c.header("x-fathom-reason", reason);
  c.header("server-timing", c.var.timing.toString());
  return c.body(body, 200, { "content-type": "application/json" });
}
