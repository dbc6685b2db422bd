import { ApiError, fromZodError, Heartbeat, HeartbeatClaims, tokenTimeProblem } from "@fathom/shared";
import { verify } from "hono/jwt";
import { bearerToken } from "../auth/bearer.ts";
import { sha256Hex } from "../upstream/sha256-hex.ts";
import { hmacKey } from "../upstream/sign-token.ts";

/**
 * A heartbeat whose signature is that of a service. Nothing of the body is read before that is known.
 * @param authorization the header
 * @param now seconds since the epoch
 * @throws ApiError `missing_api_key`, `invalid_api_key`; `invalid_json` and `invalid_request` for what a service must not say.
 */
export async function verifyHeartbeat(
  authorization: string | undefined,
  body: ArrayBuffer,
  secret: string,
  now: number,
): Promise<Heartbeat> {
  const claims = await claimsOf(bearerToken(authorization), secret);
  const problem = tokenTimeProblem(claims, now);
  if (problem !== undefined) throw notSigned(problem);
  if ((await sha256Hex(body)) !== claims.body_sha256) throw notSigned("the token is for another body");
  const beat = Heartbeat.safeParse(parse(new TextDecoder().decode(body)));
  if (!beat.success) throw fromZodError(beat.error);
  return beat.data;
}

async function claimsOf(token: string, secret: string): Promise<HeartbeatClaims> {
  let payload: unknown;
  try {
    // The times are looked at afterwards, with room for clocks that differ.
    payload = await verify(token, await hmacKey(secret), { alg: "HS256", exp: false, iat: false, nbf: false });
  } catch {
    throw notSigned("the signature is wrong");
  }
  const claims = HeartbeatClaims.safeParse(payload);
  if (!claims.success) throw notSigned("the token's claims are not those of a service");
  return claims.data;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ApiError("invalid_json", "The heartbeat is not JSON.", { cause });
  }
}

function notSigned(reason: string): ApiError {
  return new ApiError("invalid_api_key", `The heartbeat is not authorised: ${reason}.`);
}
