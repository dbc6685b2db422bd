import { z } from "zod";
import { ModelDescription } from "./models.ts";
import { Sha256Hex } from "./service-token.ts";
import { ServiceUrl } from "./service-url.ts";

/** Where the edge takes heartbeats. */
export const HEARTBEAT_PATH = "/internal/fleet/heartbeat";

/** How often a service says that it is there, milliseconds. */
export const HEARTBEAT_INTERVAL_MS = 500;

/** Name of a pool or a region. */
export const FleetName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/, {
  error: "must have 1 to 32 characters of a-z, 0-9 and '-'",
});

/** A service's own count of its requests. */
export const ServiceLoad = z.object({
  running: z.int().min(0),
  waiting: z.int().min(0),
  /** Requests that may run at the same time, where the service says so. */
  capacity: z.int().min(1).optional(),
  /** Bytes of K/V that requests may still claim, and all that there may be, where the service says so. */
  kv_free_bytes: z.int().min(0).optional(),
  kv_total_bytes: z.int().min(1).optional(),
  /** How long a running request has waited for a token of late, milliseconds; absent when none came. */
  ms_per_token: z.number().min(0).optional(),
});
export type ServiceLoad = z.infer<typeof ServiceLoad>;

/** What a service says of itself, to be counted in or out. */
export const Heartbeat = z.object({
  /** Where the edge reaches it. */
  url: ServiceUrl,
  pool: FleetName,
  region: FleetName.optional(),
  /** `leaving` takes it out at once. */
  state: z.enum(["ready", "leaving"]),
  /** When it was sent, milliseconds since the epoch; of one service an older one counts no more. */
  sent_at: z.int().min(0),
  load: ServiceLoad.required({ capacity: true }),
  model: ModelDescription,
});
export type Heartbeat = z.infer<typeof Heartbeat>;

/** Claims of the HS256 token with which a service signs a heartbeat. Another issuer than the edge: neither passes for the other. */
export const HeartbeatClaims = z.object({
  iss: z.literal("fathom-service"),
  /** SHA-256 of the body as it is sent, hex. */
  body_sha256: Sha256Hex,
  /** When it was signed, and until when it holds, seconds since the epoch. */
  iat: z.int(),
  exp: z.int(),
});
export type HeartbeatClaims = z.infer<typeof HeartbeatClaims>;
