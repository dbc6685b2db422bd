import { z } from "zod";
import { Depth } from "./fathom.ts";

/** Who goes first: interactive requests before batch ones; among equals a weight of 2 gets twice the share of 1. */
export const RequestPriority = z.object({
  class: z.enum(["interactive", "batch"]),
  weight: z.number().positive().max(1000),
});
export type RequestPriority = z.infer<typeof RequestPriority>;

/**
 * Claims of the short-lived HS256 token with which the edge calls a GPU service. `max_depth` bounds what the service will
 * run, whatever the body says.
 */
export const ServiceTokenClaims = z.object({
  iss: z.literal("fathom-edge"),
  /** Request id. */
  jti: z.string().min(1).max(128),
  max_depth: Depth,
  /** Requests share K/V of common prompt beginnings only under the same salt: the edge gives every tenant its own. */
  cache_salt: z.string().min(1).max(128).optional(),
  /** Default interactive, weight 1. */
  priority: RequestPriority.optional(),
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
