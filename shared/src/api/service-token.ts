import { z } from "zod";
import { Depth } from "./fathom.ts";

/**
 * Claims of the short-lived HS256 token with which the edge calls a GPU service. `max_depth` bounds what the service will
 * run, whatever the body says.
 */
export const ServiceTokenClaims = z.object({
  iss: z.literal("fathom-edge"),
  /** Request id. */
  jti: z.string().min(1).max(128),
  max_depth: Depth,
  /** Expiry, seconds since the epoch. */
  exp: z.int(),
});
export type ServiceTokenClaims = z.infer<typeof ServiceTokenClaims>;

/** Header with which the edge tells the service why it chose the depth; the service copies it into `fathom.reason`. */
export const REASON_HEADER = "x-fathom-reason";
/** Header with which the edge tells the service the plan's price in nano-USD per layer-token, for `fathom.cost`. */
export const PRICE_HEADER = "x-fathom-price";
export const REQUEST_ID_HEADER = "x-request-id";
