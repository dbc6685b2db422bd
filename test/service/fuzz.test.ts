import { ChatCompletion, Completion, ErrorBody, ErrorCode } from "@fathom/shared";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SECRET, type ServiceProcess, serviceProcess } from "./helpers/service-process.ts";
import { TINY_NAME, type TinyCheckpoint, tinyCheckpoint } from "./helpers/tiny-checkpoint.ts";

let checkpoint: TinyCheckpoint;
let service: ServiceProcess;

beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
  service = await serviceProcess(checkpoint.dir, ["--threads", "1"]);
});

afterAll(async () => {
  await service?.stop();
  await checkpoint?.remove();
});

const CHAT = "/v1/chat/completions";
const COMPLETION = "/v1/completions";
const path = fc.constantFrom(CHAT, COMPLETION);

function send(to: string, body: string | Uint8Array<ArrayBuffer>): Promise<Response> {
  const headers = { "content-type": "application/json", authorization: `Bearer ${SECRET}` };
  return fetch(service.url + to, { method: "POST", headers, body });
}

/** An answer of the schema, or a refusal with a known code that names a field where the body has fields. */
async function checkAnswer(to: string, response: Response, body: unknown): Promise<void> {
  if (response.status === 200) {
    const stream = response.headers.get("content-type")?.startsWith("text/event-stream");
    if (stream) expect(await response.text()).toMatch(/data: \[DONE\]\n\n$/);
    else (to === CHAT ? ChatCompletion : Completion).parse(await response.json());
    return;
  }
  expect(response.status).toBeGreaterThanOrEqual(400);
  expect(response.status).toBeLessThan(500);
  const { error } = ErrorBody.parse(await response.json());
  expect(ErrorCode.options).toContain(error.code);
  if (typeof body === "object" && body !== null && !Array.isArray(body))
    expect(error.param).toEqual(expect.any(String));
}

const text = fc.oneof(fc.string({ unit: "binary", maxLength: 20 }), fc.constantFrom("", "the cat", "\ud800", "\0"));
const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(-1, 0, 1, 2, 1e308, 2 ** 53));
const depth = fc.oneof(fc.constantFrom(2, 4, 6, 8, 5, 0, -2, 1e9, "auto", "deep"), fc.jsonValue({ maxDepth: 1 }));
const message = fc.record({ role: fc.constantFrom("system", "developer", "user", "assistant"), content: text });

/** Fields with values that are often right, sometimes of the right type, and sometimes anything. */
const fields = {
  model: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(TINY_NAME, "fathom") }, text, fc.jsonValue()),
  messages: fc.oneof({ weight: 5, arbitrary: fc.array(message, { maxLength: 4 }) }, fc.jsonValue()),
  prompt: fc.oneof({ weight: 5, arbitrary: text }, fc.array(fc.integer({ min: -1, max: 330 })), fc.jsonValue()),
  temperature: fc.oneof(fc.double({ min: 0, max: 2, noNaN: true }), number, fc.jsonValue()),
  top_p: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), number),
  seed: number,
  stop: fc.oneof(text, fc.array(text, { maxLength: 5 }), fc.jsonValue()),
  stream: fc.oneof(fc.boolean(), fc.constant(null), fc.jsonValue({ maxDepth: 0 })),
  stream_options: fc.oneof(fc.record({ include_usage: fc.boolean() }), fc.jsonValue({ maxDepth: 1 })),
  n: fc.constantFrom(1, null, 2, "1"),
  user: fc.oneof(text, fc.jsonValue({ maxDepth: 0 })),
  fathom: fc.oneof(
    fc.record(
      {
        depth,
        min_depth: depth,
        max_depth: depth,
        exit: fc.constantFrom("fixed", "confidence", "speculative"),
        threshold: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constantFrom("calibrated", 2, null)),
      },
      { requiredKeys: [] },
    ),
    fc.jsonValue(),
  ),
  tools: fc.jsonValue(),
};
const REQUIRED = ["model", "messages", "prompt"] as const;
const OPTIONAL = (Object.keys(fields) as (keyof typeof fields)[]).filter(
  (name) => !REQUIRED.some((key) => key === name),
);
/** Few optional fields at a time: with many, nearly every body would have a wrong one. */
const nearlyValid = fc.subarray(OPTIONAL, { maxLength: 4 }).chain((names) =>
  fc.record({
    ...Object.fromEntries([...REQUIRED, ...names].map((name) => [name, fields[name]])),
    max_tokens: fc.oneof({ weight: 5, arbitrary: fc.integer({ min: 1, max: 3 }) }, number),
  }),
);

test("nearly valid bodies are answered or refused by name", async () => {
  const statuses = new Set<number>();
  await fc.assert(
    fc.asyncProperty(path, nearlyValid, async (to, body) => {
      const response = await send(to, JSON.stringify(body));
      statuses.add(response.status);
      await checkAnswer(to, response, JSON.parse(JSON.stringify(body)));
    }),
    { numRuns: 400 },
  );
  // Else the property would not have been tried on both sides.
  expect([...statuses]).toEqual(expect.arrayContaining([200, 400]));
});

test("any JSON is refused by name", async () => {
  await fc.assert(
    fc.asyncProperty(path, fc.jsonValue(), async (to, body) => {
      await checkAnswer(to, await send(to, JSON.stringify(body)), body);
    }),
    { numRuns: 150 },
  );
});

test("any bytes are refused", async () => {
  await fc.assert(
    fc.asyncProperty(path, fc.uint8Array(), async (to, bytes) => {
      const response = await send(to, new Uint8Array(bytes));
      expect(response.status).toBe(400);
      expect(["invalid_json", "invalid_request"]).toContain(ErrorBody.parse(await response.json()).error.code);
    }),
    { numRuns: 100 },
  );
});

test.each([
  ["deeply nested lists", "[".repeat(500_000)],
  ["deeply nested messages", `{"model":"tiny","messages":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
  ["a prototype", '{"__proto__":{"model":"tiny"},"constructor":{"prototype":{"messages":[]}}}'],
  ["many messages", JSON.stringify({ model: TINY_NAME, messages: Array(9000).fill({ role: "user", content: "a" }) })],
  ["one long word", JSON.stringify({ model: TINY_NAME, messages: [{ role: "user", content: "a".repeat(900_000) }] })],
])("%s do no harm", async (_, body) => {
  const response = await send(CHAT, body);
  expect(response.status).toBe(400);
  expect(ErrorCode.options).toContain(ErrorBody.parse(await response.json()).error.code);
});

test("after all that the service answers as ever", async () => {
  expect(await (await fetch(`${service.url}/healthz`)).json()).toEqual({
    status: "ok",
    load: { running: 0, waiting: 0 },
  });
  const body = { model: TINY_NAME, messages: [{ role: "user", content: "Hi" }], max_tokens: 2, temperature: 0 };
  const response = await send(CHAT, JSON.stringify(body));
  expect(ChatCompletion.parse(await response.json()).usage.completion_tokens).toBe(2);
  expect(service.log.filter((line) => Number(line.level) >= 50)).toEqual([]);
});
