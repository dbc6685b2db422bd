import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { ApiError, HEARTBEAT_INTERVAL_MS, HEARTBEAT_PATH, Heartbeat, HeartbeatClaims } from "@fathom/shared";
import { verify } from "hono/jwt";
import pino from "pino";
import { expect, onTestFinished, test } from "vitest";
import { hmacKey } from "./hmac-key.ts";
import { Registration } from "./registration.ts";

const SECRET = "PUBLIC-or-PRIVATE-the-secret-is-bytes";
const model = { id: "tiny", object: "model" as const, created: 0, owned_by: "fathom" };

/** An edge that takes every heartbeat, or refuses each. */
async function edge() {
  const beats: Heartbeat[] = [];
  const state = { refuse: false };
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request.setEncoding("utf8")) text += String(chunk);
    const token = (request.headers.authorization ?? "").replace("Bearer ", "");
    const claims = HeartbeatClaims.parse(await verify(token, await hmacKey(SECRET), "HS256"));
    expect(claims.body_sha256).toBe(createHash("sha256").update(text).digest("hex"));
    expect(request.url).toBe(HEARTBEAT_PATH);
    if (state.refuse) {
      const error = new ApiError("invalid_api_key", "the edge's reason");
      response.writeHead(error.status).end(JSON.stringify(error.toBody()));
      return;
    }
    beats.push(Heartbeat.parse(JSON.parse(text)));
    response.writeHead(204).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, beats, state };
}

function register(url: string) {
  const log: Record<string, unknown>[] = [];
  const logger = pino({ base: null }, { write: (line: string) => log.push(JSON.parse(line)) });
  let running = 0;
  const registration = new Registration({
    edge: url,
    about: { url: "http://10.0.0.1", pool: "default", region: "eu", model },
    load: () => ({ running: ++running, waiting: 0, capacity: 4 }),
    secret: SECRET,
    logger,
  });
  onTestFinished(() => registration.leave());
  return { registration, log };
}

const until = (met: () => boolean) => expect.poll(met, { timeout: 20_000, interval: 20 }).toBe(true);

test("tells the edge at once and again and again, with the load as it is, and at last that it leaves", async () => {
  const { url, beats } = await edge();
  const { registration, log } = register(url);
  const started = Date.now();
  await until(() => beats.length >= 3);
  expect(Date.now() - started).toBeGreaterThanOrEqual(2 * HEARTBEAT_INTERVAL_MS - 50);
  await registration.leave();
  const count = beats.length;
  expect(beats[0]).toMatchObject({ url: "http://10.0.0.1", region: "eu", state: "ready", model });
  expect(beats.map(({ load }) => load.running)).toEqual(beats.map((_, i) => i + 1));
  const times = beats.map(({ sent_at }) => sent_at);
  expect(times).toEqual([...new Set(times)].sort((a, b) => a - b));
  expect(beats.at(-1)?.state).toBe("leaving");
  await new Promise((resolve) => setTimeout(resolve, 2 * HEARTBEAT_INTERVAL_MS));
  expect(beats).toHaveLength(count);
  expect(log.map(({ event }) => event)).toEqual(["registered"]);
});

test("says once why the edge does not take it, and when it does again", async () => {
  const { url, beats, state } = await edge();
  state.refuse = true;
  const { log } = register(url);
  await until(() => log.length > 0);
  state.refuse = false;
  await until(() => beats.length > 0 && log.length > 1);
  expect(log).toMatchObject([
    { event: "not registered", problem: "the edge's reason" },
    { event: "registered", edge: url },
  ]);
});

test("an edge that is not there neither throws nor holds up the end", async () => {
  const { registration, log } = register("http://127.0.0.1:9");
  await until(() => log.length > 0);
  await registration.leave();
  expect(log).toMatchObject([{ event: "not registered" }]);
});
