import { EMPTY_SHA256 } from "@fathom/shared";
import { expect, onTestFinished, test } from "vitest";
import { edgeToken } from "./testing/edge-token.ts";
import { errorOf, post, scriptedService } from "./testing/scripted-service.ts";

const SECRET = "a-secret-of-sixteen-or-more";
const CHAT = { model: "tiny", messages: [{ role: "user", content: "Hi" }] };
const PATH = "/v1/chat/completions";

async function start() {
  const started = await scriptedService({ secret: SECRET });
  onTestFinished(() => started.close());
  return started;
}

test("a token opens its own body, once, and the log says what was wrong", async () => {
  const { url, log } = await start();
  const headers = await edgeToken(SECRET, CHAT);
  expect((await post(url + PATH, CHAT, { headers })).status).toBe(200);
  const again = await errorOf(await post(url + PATH, CHAT, { headers }));
  expect(again).toMatchObject({
    status: 401,
    code: "invalid_api_key",
    message: expect.stringContaining("used before"),
  });
  expect(log.find(({ msg }) => msg === "not authorised")).toMatchObject({ reason: again.message });
});

test("a token does not open another body: not one space of it", async () => {
  const { url, engine } = await start();
  for (const body of [{ ...CHAT, max_tokens: 9 }, ` ${JSON.stringify(CHAT)}`, ""]) {
    const response = await post(url + PATH, body, { headers: await edgeToken(SECRET, CHAT) });
    expect(await errorOf(response)).toMatchObject({ status: 401, message: expect.stringContaining("another body") });
  }
  expect(engine.requests).toEqual([]);
});

test("a body in pieces is put together first", async () => {
  const { url } = await start();
  const pieces = new Blob([JSON.stringify(CHAT)]).stream();
  const headers = { ...(await edgeToken(SECRET, CHAT)), "content-type": "application/json" };
  const init = { method: "POST", body: pieces, headers, duplex: "half" as const };
  expect((await fetch(url + PATH, init)).status).toBe(200);
});

test("a token for a request without a body opens the list of models", async () => {
  const { url } = await start();
  const open = async (body_sha256?: string) => {
    const headers = await edgeToken(SECRET, CHAT, body_sha256 === undefined ? {} : { body_sha256 });
    return (await fetch(`${url}/v1/models`, { headers })).status;
  };
  expect(await open(EMPTY_SHA256)).toBe(200);
  expect(await open()).toBe(401);
});
