import { webcrypto } from "node:crypto";
import { PRICE_HEADER, PRIORITY_HEADER, REASON_HEADER } from "@fathom/shared";
import { sign } from "hono/jwt";
import { expect, test } from "vitest";
import { allowEverybody, requireSecret, secretProblem } from "./caller.ts";

const SECRET = "PUBLIC-or-PRIVATE-the-secret-is-bytes";
const authenticate = await requireSecret(SECRET);

const BODY = "ab".repeat(32);
let ids = 0;
const soon = (): number => Math.floor(Date.now() / 1000) + 60;
const claims = (overrides: object = {}) => ({
  iss: "fathom-edge",
  jti: `req-${++ids}`,
  max_depth: 18,
  body_sha256: BODY,
  iat: soon() - 60,
  exp: soon(),
  ...overrides,
});

function headers(authorization: string | undefined, more: Record<string, string> = {}): Headers {
  return new Headers({ ...(authorization === undefined ? {} : { authorization }), ...more });
}

async function bearer(payload: object, secret = SECRET, hash: "256" | "512" = "256"): Promise<string> {
  const algorithm = { name: "HMAC", hash: `SHA-${hash}` };
  const key = await webcrypto.subtle.importKey("raw", Buffer.from(secret), algorithm, false, ["sign"]);
  return `Bearer ${await sign({ ...payload }, key, `HS${hash}`)}`;
}

test("the secret itself opens every depth", async () => {
  expect(await authenticate(headers(`Bearer ${SECRET}`))).toMatchObject({
    maxDepth: Number.POSITIVE_INFINITY,
    price: 0,
  });
});

test("a token of the edge carries its claims", async () => {
  const token = await bearer(claims({ cache_salt: "acme" }));
  const given = headers(token, { [REASON_HEADER]: "budget", [PRICE_HEADER]: "250" });
  const priority = { class: "interactive", weight: 1 };
  expect(await authenticate(given)).toEqual({
    maxDepth: 18,
    reason: "budget",
    price: 250,
    cacheSalt: "acme",
    bodySha256: BODY,
    priority,
  });
});

test("a token's priority is believed, and a header beside it means nothing", async () => {
  const priority = { class: "batch", weight: 2.5 };
  const given = headers(await bearer(claims({ priority })), { [PRIORITY_HEADER]: "interactive" });
  expect(await authenticate(given)).toMatchObject({ priority });
});

test.each([
  [{ class: "urgent", weight: 1 }, "priority.class"],
  [{ class: "batch", weight: 0 }, "priority.weight"],
  [{ class: "batch", weight: 1e9 }, "priority.weight"],
  ["batch", "priority"],
])("a token with the priority %j is refused, and the claim is named", async (priority, claim) => {
  await expect(authenticate(headers(await bearer(claims({ priority }))))).rejects.toMatchObject({
    code: "invalid_api_key",
    message: expect.stringContaining(`'${claim}'`),
  });
});

test("who has the secret may say that a request can wait", async () => {
  for (const [given, expected] of [
    [undefined, "interactive"],
    ["interactive", "interactive"],
    ["batch", "batch"],
  ] as const) {
    const more = given === undefined ? undefined : { [PRIORITY_HEADER]: given };
    const priority = { class: expected, weight: 1 };
    expect(await authenticate(headers(`Bearer ${SECRET}`, more))).toMatchObject({ priority });
    expect(await allowEverybody(headers(undefined, more))).toMatchObject({ priority });
  }
});

test("an unknown priority is refused by name", async () => {
  const given = headers(`Bearer ${SECRET}`, { [PRIORITY_HEADER]: "urgent" });
  for (const authenticated of [authenticate(given), allowEverybody(given)]) {
    await expect(authenticated).rejects.toMatchObject({ code: "invalid_request", param: PRIORITY_HEADER });
  }
});

test("the edge's headers mean nothing without its token", async () => {
  const given = headers(`Bearer ${SECRET}`, { [REASON_HEADER]: "budget", [PRICE_HEADER]: "250" });
  expect(await authenticate(given)).toMatchObject({ reason: undefined, price: 0 });
  expect(await allowEverybody(given)).toMatchObject({ reason: undefined, price: 0 });
});

test("no key is told apart from a wrong one", async () => {
  await expect(authenticate(headers(undefined))).rejects.toMatchObject({ code: "missing_api_key", status: 401 });
});

const none = (payload: object): string => {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `Bearer ${part({ alg: "none", typ: "JWT" })}.${part(payload)}.`;
};

test.each([
  ["an empty key", () => "Bearer "],
  ["another scheme", () => `Basic ${SECRET}`],
  ["a wrong key", () => "Bearer something-else-entirely"],
  ["a prefix of the key", () => `Bearer ${SECRET.slice(0, -1)}`],
  ["three parts that are not a token", () => "Bearer a.b.c"],
  ["an unsigned token", () => none(claims())],
  ["a token signed with another secret", () => bearer(claims(), "another secret of good length")],
  ["a token signed with another algorithm", () => bearer(claims(), SECRET, "512")],
  ["an expired token", () => bearer(claims({ iat: soon() - 160, exp: soon() - 100 }))],
  ["a token without a body", () => bearer(claims({ body_sha256: undefined }))],
  ["a token that lasts an hour", () => bearer(claims({ exp: soon() + 3600 }))],
  ["a token without an end", () => bearer(claims({ exp: undefined }))],
  ["a token of another issuer", () => bearer(claims({ iss: "someone" }))],
  ["a token without a depth", () => bearer(claims({ max_depth: undefined }))],
])("%s is refused", async (_, authorization) => {
  await expect(authenticate(headers(await authorization()))).rejects.toMatchObject({
    code: "invalid_api_key",
    status: 401,
  });
});

test("a token is good once", async () => {
  const token = await bearer(claims());
  await authenticate(headers(token));
  await expect(authenticate(headers(token))).rejects.toMatchObject({
    code: "invalid_api_key",
    message: expect.stringContaining("used before"),
  });
});

test.each([
  ["behind", -25],
  ["ahead", 25],
])("a clock that is 25 s %s does no harm", async (_, seconds) => {
  const now = soon() - 60 + seconds;
  const token = await bearer(claims({ iat: now, exp: now + 60 }));
  expect(await authenticate(headers(token))).toMatchObject({ maxDepth: 18 });
});

test.each([
  ["not valid yet", 300],
  ["has expired", -300],
])("a clock that is 5 minutes off is named: %s", async (words, seconds) => {
  const now = soon() - 60 + seconds;
  const authenticated = authenticate(headers(await bearer(claims({ iat: now, exp: now + 60 }))));
  await expect(authenticated).rejects.toMatchObject({
    code: "invalid_api_key",
    message: expect.stringContaining(words),
  });
});

test("a token whose payload was altered is refused", async () => {
  const [head, , signature] = (await bearer(claims())).split(".");
  const payload = Buffer.from(JSON.stringify(claims({ max_depth: 1000 }))).toString("base64url");
  await expect(authenticate(headers(`${head}.${payload}.${signature}`))).rejects.toMatchObject({
    code: "invalid_api_key",
  });
});

test.each([
  [REASON_HEADER, "because"],
  [PRICE_HEADER, "1.5"],
  [PRICE_HEADER, "-1"],
  [PRICE_HEADER, "9999999999999"],
])("a malformed %s of the edge is refused: %s", async (name, value) => {
  const given = headers(await bearer(claims()), { [name]: value });
  await expect(authenticate(given)).rejects.toMatchObject({ code: "invalid_request", param: name });
});

test("a secret must be long enough and fit into a header", () => {
  expect(secretProblem("0123456789abcdef")).toBeUndefined();
  expect(secretProblem("0123456789abcde")).toMatch(/at least 16/);
  expect(secretProblem("0123456789 abcdef")).toMatch(/without spaces/);
  expect(secretProblem("0123456789äbcdef")).toMatch(/ASCII/);
});
