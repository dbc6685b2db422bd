import { createHash, timingSafeEqual, type webcrypto } from "node:crypto";
import {
  ApiError,
  CLOCK_SKEW_SECONDS,
  DepthReason,
  PRICE_HEADER,
  PRIORITY_HEADER,
  REASON_HEADER,
  RequestPriority,
  ServiceTokenClaims,
  tokenTimeProblem,
} from "@fathom/shared";
import { verify } from "hono/jwt";
import { hmacKey } from "./hmac-key.ts";
import { badHeader } from "./request-limits.ts";
import { UsedTokens } from "./used-tokens.ts";

/** Who calls, and what that entitles to. */
export interface Caller {
  /** Deepest layer that may run. */
  maxDepth: number;
  /** Why the edge chose the depth; undefined for a direct caller. */
  reason: DepthReason | undefined;
  /** Nano-USD per layer-token. */
  price: number;
  /** Shares K/V of prompt beginnings with callers of the same salt only; direct callers have none. */
  cacheSalt: string | undefined;
  /** The only body that the token is good for, as SHA-256 in hex; direct callers may send any. */
  bodySha256: string | undefined;
  /** Whose turn it is when requests wait. */
  priority: RequestPriority;
}

export type Authenticate = (headers: Headers) => Promise<Caller>;

/** A shorter secret could be guessed from one signed token. */
const MIN_SECRET_LENGTH = 16;

const DEFAULT_PRIORITY: RequestPriority = { class: "interactive", weight: 1 };
const PriorityClass = RequestPriority.shape.class;
const PRICE = /^\d{1,12}$/;

/** Why a text cannot serve as the secret, or undefined when it can. */
export function secretProblem(secret: string): string | undefined {
  if (secret.length < MIN_SECRET_LENGTH) return `it must have at least ${MIN_SECRET_LENGTH} characters`;
  return /^[\x21-\x7e]+$/.test(secret) ? undefined : "a header carries it: it must be printable ASCII without spaces";
}

/** Lets everybody in; for a service that only its own machine can reach. */
export const allowEverybody: Authenticate = async (headers) => direct(headers);

/**
 * Accepts the secret itself as bearer token, or a token that the edge signed with it (HS256). What the edge says in headers
 * counts only with such a token, which is good once and for one body (see bound-body.ts); who has the secret may name a request's priority in a header.
 * @throws (the returned function) ApiError `missing_api_key`, `invalid_api_key`, `invalid_request` for a malformed header.
 */
export async function requireSecret(secret: string): Promise<Authenticate> {
  const expected = digest(secret);
  const key = await hmacKey(secret);
  const used = new UsedTokens();
  return async (headers) => {
    const header = headers.get("authorization");
    if (header === null) {
      throw new ApiError("missing_api_key", "Send the key as 'Authorization: Bearer KEY'.");
    }
    const token = /^Bearer +(\S+) *$/i.exec(header)?.[1];
    if (token === undefined) throw invalidKey("the Authorization header is not of the form 'Bearer KEY'");
    // Digests have one length, so that the comparison tells nothing about the secret's.
    if (timingSafeEqual(digest(token), expected)) return direct(headers);
    const claims = await claimsOf(token, key);
    takeOnce(used, claims);
    return fromEdge(claims, headers);
  };
}

/** @throws ApiError `invalid_api_key` for a token that is too old, too new or was shown before; `overloaded`. */
function takeOnce(used: UsedTokens, claims: ServiceTokenClaims): void {
  const now = Date.now() / 1000;
  const problem = tokenTimeProblem(claims, now);
  if (problem !== undefined) throw invalidKey(problem);
  const taken = used.take(claims.jti, claims.exp + CLOCK_SKEW_SECONDS, now);
  if (taken === "replayed") throw invalidKey("the token has been used before");
  if (taken === "full") {
    throw new ApiError("overloaded", "More tokens were used than can be remembered.", { retryAfter: 5 });
  }
}

async function claimsOf(token: string, key: webcrypto.CryptoKey): Promise<ServiceTokenClaims> {
  let payload: unknown;
  try {
    // The times are looked at once the signature is known to be right, and with room for clocks that differ.
    payload = await verify(token, key, { alg: "HS256", exp: false, iat: false, nbf: false });
  } catch {
    throw invalidKey("the key is wrong");
  }
  const claims = ServiceTokenClaims.safeParse(payload);
  if (claims.success) return claims.data;
  const claim = claims.error.issues[0]?.path.join(".");
  throw invalidKey(`the token's claims are not those of a service token${claim ? ` ('${claim}')` : ""}`);
}

function direct(headers: Headers): Caller {
  const given = headers.get(PRIORITY_HEADER);
  const known = PriorityClass.optional().safeParse(given ?? undefined);
  if (!known.success) throw badHeader(PRIORITY_HEADER, `must be one of ${PriorityClass.options.join(", ")}`);
  const priority = known.data ? { ...DEFAULT_PRIORITY, class: known.data } : DEFAULT_PRIORITY;
  return {
    maxDepth: Number.POSITIVE_INFINITY,
    reason: undefined,
    price: 0,
    cacheSalt: undefined,
    bodySha256: undefined,
    priority,
  };
}

function fromEdge(claims: ServiceTokenClaims, headers: Headers): Caller {
  const reason = headers.get(REASON_HEADER);
  const price = headers.get(PRICE_HEADER);
  const known = DepthReason.optional().safeParse(reason ?? undefined);
  if (!known.success) throw badHeader(REASON_HEADER, `must be one of ${DepthReason.options.join(", ")}`);
  if (price !== null && !PRICE.test(price)) throw badHeader(PRICE_HEADER, "must be a whole number of nano-USD");
  return {
    maxDepth: claims.max_depth,
    reason: known.data,
    price: price === null ? 0 : Number(price),
    cacheSalt: claims.cache_salt,
    bodySha256: claims.body_sha256,
    priority: claims.priority ?? DEFAULT_PRIORITY,
  };
}

function invalidKey(reason: string): ApiError {
  return new ApiError("invalid_api_key", `The request is not authorised: ${reason}.`);
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
