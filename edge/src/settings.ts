import { FleetName, ServiceUrl } from "@fathom/shared";
import { z } from "zod";
import { isWebhookSecret } from "./usage/sign-webhook.ts";
import { webhookUrlProblem } from "./usage/webhook-url.ts";

/** A shorter secret could be guessed from one signed token. */
const Secret = z.string().min(16, { error: "must have at least 16 characters" });

const WholeNumber = (max: number) =>
  z
    .string()
    .regex(/^\d{1,6}$/, { error: "must be a whole number" })
    .transform(Number)
    .refine((value) => value >= 1 && value <= max, { error: `must be from 1 to ${max}` });

/** Names separated by commas; nothing for none. */
function list<T extends z.ZodType<string, string>>(item: T) {
  return z
    .string()
    .transform((text) => (text.trim() === "" ? [] : text.split(",").map((part) => part.trim())))
    .pipe(z.array(item));
}

const Settings = z
  .object({
    UPSTREAMS: list(ServiceUrl),
    POOL: FleetName.prefault("default"),
    REGION_ORDER: list(FleetName).prefault(""),
    SERVICE_CAPACITY: WholeNumber(100_000),
    REQUEST_TIMEOUT_SECONDS: WholeNumber(3600),
    FIRST_BYTE_TIMEOUT_MS: WholeNumber(999_999).prefault("120000"),
    HEDGE_AFTER_MS: z
      .string()
      .optional()
      .transform((text) => (text === "" ? undefined : text))
      .pipe(WholeNumber(999_999).optional()),
    BATCH_MAX_FILE_MEGABYTES: WholeNumber(100).prefault("20"),
    BATCH_MAX_LINES: WholeNumber(50_000).prefault("10000"),
    BATCH_MAX_LOAD_PERCENT: WholeNumber(100).prefault("50"),
    SERVICE_SECRET: Secret,
    ADMIN_SECRET: Secret,
    BILLING_WEBHOOK_URL: z.string().optional(),
    BILLING_WEBHOOK_SECRET: z
      .string()
      .refine((text) => text === "" || isWebhookSecret(text), { error: "must be whsec_ and 24 to 64 bytes in base64" })
      .optional(),
    WEBHOOKS_TO_LOCALHOST: z.enum(["", "true"], { error: 'must be "true" or unset' }).optional(),
  })
  .superRefine(({ BILLING_WEBHOOK_URL: url, BILLING_WEBHOOK_SECRET: secret, WEBHOOKS_TO_LOCALHOST }, ctx) => {
    if (!url) return;
    const problem = webhookUrlProblem(url, WEBHOOKS_TO_LOCALHOST === "true");
    if (problem) ctx.addIssue({ code: "custom", path: ["BILLING_WEBHOOK_URL"], message: problem });
    if (!secret) {
      ctx.addIssue({ code: "custom", path: ["BILLING_WEBHOOK_SECRET"], message: "is wanted with BILLING_WEBHOOK_URL" });
    }
  });

/** The worker's variables and secrets, checked. */
export interface Settings {
  /** Base URLs of the GPU services that do not register themselves, without a slash at the end. */
  upstreams: readonly string[];
  /** Pool whose registered services answer, too. */
  pool: string;
  /** Regions in the order in which they are used, the own one first. */
  regionOrder: readonly string[];
  /** Requests in flight with which one service counts as full. */
  serviceCapacity: number;
  /** Longest time from a request to the end of its answer. */
  requestTimeoutMs: number;
  /** How long a service may take to begin with a stream. */
  firstByteTimeoutMs: number;
  /** When a second service is asked for a stream that has not begun; undefined: never. */
  hedgeAfterMs: number | undefined;
  serviceSecret: string;
  /** Longest input file of a batch. */
  batchMaxFileBytes: number;
  /** Most requests of a batch. */
  batchMaxLines: number;
  /** Load of a service, 0 to 1, from which on it gets no lines of batches. */
  batchMaxLoad: number;
  /** Where billing events go, and the secret that they are signed with. */
  webhook: { url: string; secret: string } | undefined;
}

const checked = new WeakMap<object, Settings>();

/**
 * Reads the settings from the bindings; checks them once.
 * @throws Error that names every offending variable (never its value).
 */
export function settingsOf(env: Env): Settings {
  const known = checked.get(env);
  if (known) return known;
  const result = Settings.safeParse(env);
  if (!result.success) {
    const problems = result.error.issues.map(({ path, message }) => `  ${String(path[0])}: ${message}`);
    throw new Error(`The worker's variables are not valid:\n${problems.join("\n")}`);
  }
  const { UPSTREAMS, SERVICE_CAPACITY, REQUEST_TIMEOUT_SECONDS, SERVICE_SECRET } = result.data;
  const { BILLING_WEBHOOK_URL: url, BILLING_WEBHOOK_SECRET: secret } = result.data;
  const settings: Settings = {
    upstreams: [...new Set(UPSTREAMS)],
    pool: result.data.POOL,
    regionOrder: result.data.REGION_ORDER,
    serviceCapacity: SERVICE_CAPACITY,
    requestTimeoutMs: REQUEST_TIMEOUT_SECONDS * 1000,
    firstByteTimeoutMs: result.data.FIRST_BYTE_TIMEOUT_MS,
    hedgeAfterMs: result.data.HEDGE_AFTER_MS,
    serviceSecret: SERVICE_SECRET,
    batchMaxFileBytes: result.data.BATCH_MAX_FILE_MEGABYTES * 1_000_000,
    batchMaxLines: result.data.BATCH_MAX_LINES,
    batchMaxLoad: result.data.BATCH_MAX_LOAD_PERCENT / 100,
    webhook: url && secret ? { url, secret } : undefined,
  };
  checked.set(env, settings);
  return settings;
}
