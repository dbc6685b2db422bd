import { env } from "cloudflare:workers";
import { HEARTBEAT_PATH, type Heartbeat } from "@fathom/shared";
import { sign } from "hono/jwt";
import { sha256Hex } from "../upstream/sha256-hex.ts";
import { hmacKey } from "../upstream/sign-token.ts";
import { send } from "./edge.ts";

let lastSentAt = 0;

/** What a service of the stub's model would say of itself now. */
export function beatOf(url: string, more: Partial<Heartbeat> = {}): Heartbeat {
  lastSentAt = Math.max(Date.now(), lastSentAt + 1);
  const exits = [12, 18, 24, 30].map((depth) => ({ depth, parameters: depth, bytes: depth }));
  return {
    url,
    pool: "default",
    state: "ready",
    sent_at: lastSentAt,
    load: { running: 0, waiting: 0, capacity: 4 },
    model: {
      id: "stub-30",
      object: "model",
      created: 0,
      owned_by: "fathom",
      fathom: { layers: 30, context_length: 2048, exits, bytes: 30, parameters: 30 },
    },
    ...more,
  };
}

/** The Authorization header with which a service signs a body. */
export async function signBeat(text: string, claims: object = {}, secret = env.SERVICE_SECRET): Promise<string> {
  const iat = Math.floor(Date.now() / 1000);
  const body_sha256 = await sha256Hex(new TextEncoder().encode(text));
  const whole = { iss: "fathom-service", body_sha256, iat, exp: iat + 10, ...claims };
  return `Bearer ${await sign(whole, await hmacKey(secret), "HS256")}`;
}

/** Sends a heartbeat as a service does. */
export async function sendBeat(beat: object, claims: object = {}): Promise<Response> {
  const text = JSON.stringify(beat);
  return await postBeat(text, await signBeat(text, claims));
}

export async function postBeat(text: string, authorization: string | undefined): Promise<Response> {
  const headers = authorization === undefined ? {} : { authorization };
  return await send(HEARTBEAT_PATH, { method: "POST", body: text, headers });
}
