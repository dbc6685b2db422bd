import { z } from "zod";
import { Depth } from "./fathom.ts";

/** Who goes first: interactive requests before batch ones; among equals a weight of 2 gets twice the share of 1. */
export const RequestPriority = z.object({
  class: z.enum(["interactive", "batch"]),
  weight: z.number().positive().max(1000),
});
export type RequestPriority = z.infer<typeof RequestPriority>;

/** A SHA-256 in lower-case hex. */
export const Sha256Hex = z.string().regex(/^[0-9a-f]{64}$/);

/** SHA-256 of no bytes: what a token names for a request without a body. */
export const EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** How much the clocks of edge and service may differ, seconds. */
export const CLOCK_SKEW_SECONDS = 30;

/** Longest time from `iat` to `exp`, seconds: so long must ids be remembered. */
export const MAX_TOKEN_LIFETIME_SECONDS = 120;

/**
 * Claims of the short-lived HS256 token with which the edge calls a GPU service. `max_depth` bounds what the service will
 * run, whatever the body says.
 */
export const ServiceTokenClaims = z.object({
  iss: z.literal("fathom-edge"),
  /** Id of this token: a service takes each once. The edge makes it of the request's id and the number of the try. */
  jti: z.string().min(1).max(128),
  max_depth: Depth,
  /** Requests share K/V of common prompt beginnings only under the same salt: the edge gives every tenant its own. */
  cache_salt: z.string().min(1).max(128).optional(),
  /** Default interactive, weight 1. */
  priority: RequestPriority.optional(),
  /** SHA-256 of the request's body as it is sent, hex: the token is good for no other. */
  body_sha256: Sha256Hex,
  /** When it was signed, seconds since the epoch. */
  iat: z.int(),
  /** Expiry, seconds since the epoch. */
  exp: z.int(),
});
export type ServiceTokenClaims = z.infer<typeof ServiceTokenClaims>;

/** Header with which the edge tells the service why it chose the depth; the service copies it into `fathom.reason`. */
export const REASON_HEADER = "x-fathom-reason";
/** Header with which the edge tells the service the plan's price in nano-USD per layer-token, for `fathom.cost`. */
export const PRICE_HEADER = "x-fathom-price";
/** Header with which a direct caller names the class of a request's priority. Who comes through the edge has the token's. */
export const PRIORITY_HEADER = "x-fathom-priority";
/** Header with which a caller shortens the service's time limit for one answer, in whole milliseconds. */
export const TIMEOUT_HEADER = "x-fathom-timeout-ms";
export const REQUEST_ID_HEADER = "x-request-id";
