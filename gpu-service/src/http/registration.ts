import { createHash } from "node:crypto";
import { ErrorBody, HEARTBEAT_INTERVAL_MS, HEARTBEAT_PATH, type Heartbeat, type HeartbeatClaims } from "@fathom/shared";
import { sign } from "hono/jwt";
import type { Logger } from "pino";
import { hmacKey } from "./hmac-key.ts";

/** How long the edge may take to hear, milliseconds: later it counts the service out anyway. */
const TIMEOUT_MS = 2000;
/** How long a heartbeat's token holds, seconds. */
const LIFETIME_SECONDS = 10;
/** Heartbeats that may be on their way when the edge is slow. */
const MOST_UNDER_WAY = 4;

export interface RegistrationOptions {
  /** Base URL of the edge. */
  edge: string;
  /** What it is told besides the load, which is asked for each time. */
  about: Pick<Heartbeat, "url" | "pool" | "region" | "model">;
  load: () => Heartbeat["load"];
  secret: string;
  logger: Pick<Logger, "info" | "warn">;
}

/** Keeps telling an edge that the service is there, until it leaves. The log says when the edge cannot be told, and when it can again. */
export class Registration {
  readonly #options: RegistrationOptions;
  readonly #timer: NodeJS.Timeout;
  #underWay = 0;
  #lastSentAt = 0;
  #problem: string | undefined = "not yet registered";

  constructor(options: RegistrationOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.#beat("ready"), HEARTBEAT_INTERVAL_MS).unref();
    void this.#beat("ready");
  }

  /** Tells the edge to send nothing more. Never throws: an edge that cannot be told notices by the silence. */
  async leave(): Promise<void> {
    clearInterval(this.#timer);
    await this.#beat("leaving");
  }

  async #beat(state: Heartbeat["state"]): Promise<void> {
    if (state === "ready" && this.#underWay >= MOST_UNDER_WAY) return;
    this.#underWay++;
    const problem = await this.#send(state).then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    this.#underWay--;
    if (problem === this.#problem) return;
    this.#problem = problem;
    const { edge, logger } = this.#options;
    if (problem === undefined) logger.info({ event: "registered", edge }, "registered");
    else logger.warn({ event: "not registered", edge, problem }, "the edge does not hear of this service");
  }

  /** @throws Error that says why the edge did not take it */
  async #send(state: Heartbeat["state"]): Promise<void> {
    const { edge, about, load, secret } = this.#options;
    // The edge takes nothing that is not later than the last.
    this.#lastSentAt = Math.max(Date.now(), this.#lastSentAt + 1);
    const beat: Heartbeat = { ...about, state, sent_at: this.#lastSentAt, load: load() };
    const body = JSON.stringify(beat);
    const iat = Math.floor(Date.now() / 1000);
    const claims: HeartbeatClaims = {
      iss: "fathom-service",
      body_sha256: createHash("sha256").update(body).digest("hex"),
      iat,
      exp: iat + LIFETIME_SECONDS,
    };
    const response = await fetch(edge + HEARTBEAT_PATH, {
      method: "POST",
      headers: {
        authorization: `Bearer ${await sign(claims, await hmacKey(secret), "HS256")}`,
        "content-type": "application/json",
      },
      body,
      redirect: "manual",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const answer: unknown = await response.json().catch(() => undefined);
    if (response.status === 204) return;
    const said = ErrorBody.safeParse(answer);
    throw new Error(said.success ? said.data.error.message : `the edge answered with status ${response.status}`);
  }
}
