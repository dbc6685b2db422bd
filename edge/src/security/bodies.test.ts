import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { MAX_BODY_BYTES } from "../http/read-json.ts";
import { edgeWith, newTenant, post, refusal, send, type TestTenant } from "../testing/edge.ts";
import { jsonEndpoints } from "../testing/operations.ts";

let tenant: TestTenant;
beforeAll(async () => {
  tenant = await newTenant();
});

const keyFor = (path: string) => (path.startsWith("/admin/") ? env.ADMIN_SECRET : tenant.key);

/** A body that comes in pieces and says no length; counts what was taken of it. */
function inPieces(bytes: number, first = "") {
  const piece = new TextEncoder().encode("x".repeat(65_536));
  const counter = { sent: 0 };
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode(first)),
    pull: (controller) => {
      counter.sent += piece.length;
      controller.enqueue(piece);
      if (counter.sent >= bytes) controller.close();
    },
  });
  return { body, counter };
}

describe.each(jsonEndpoints().map((endpoint) => [`${endpoint.method} ${endpoint.path}`, endpoint] as const))(
  "%s",
  (_, { method, path }) => {
    test("refuses a body that announces too much", async () => {
      const body = `{"x":"${"x".repeat(MAX_BODY_BYTES)}"}`;
      const response = await send(path, post(keyFor(path), {}, { method, body }));
      expect(await refusal(response)).toMatchObject({ status: 413, code: "body_too_large" });
    });

    test("refuses a body that comes in too many pieces, without taking them all", async () => {
      const { body, counter } = inPieces(50 * MAX_BODY_BYTES, '{"x":"');
      const response = await send(path, post(keyFor(path), {}, { method, body }));
      expect(await refusal(response)).toMatchObject({ status: 413, code: "body_too_large" });
      expect(counter.sent).toBeLessThan(10 * MAX_BODY_BYTES);
    });

    test("takes nothing from a stranger", async () => {
      const { body, counter } = inPieces(50 * MAX_BODY_BYTES);
      const response = await send(path, post("wrong", {}, { method, body }));
      expect(await refusal(response)).toMatchObject({ status: 401, code: "invalid_api_key" });
      expect(counter.sent).toBeLessThan(10 * MAX_BODY_BYTES);
    });
  },
);

test("a body of just the limit is read", async () => {
  const frame = JSON.stringify({ tenant: "", plan: "pro" });
  const body = JSON.stringify({ tenant: "x".repeat(MAX_BODY_BYTES - frame.length), plan: "pro" });
  expect(body).toHaveLength(MAX_BODY_BYTES);
  const got = await refusal(await send("/admin/tenants", post(env.ADMIN_SECRET, {}, { body })));
  expect(got).toMatchObject({ status: 400, code: "invalid_request", param: "tenant" });
});

describe("an uploaded file", () => {
  const MAX = 1_000_000;
  const ask = edgeWith({ BATCH_MAX_FILE_MEGABYTES: "1" });
  const form = (more: Partial<RequestInit>): RequestInit => ({
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}`, "content-type": "multipart/form-data; boundary=b" },
    ...more,
  });
  const head = '--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n';

  test("is refused when it announces too much", async () => {
    const body = `${head}${"x".repeat(2 * MAX)}\r\n--b--\r\n`;
    expect(await refusal(await ask("/v1/files", form({ body })))).toMatchObject({
      status: 413,
      code: "body_too_large",
    });
  });

  test("is refused in too many pieces, without taking them all", async () => {
    const { body, counter } = inPieces(50 * MAX, head);
    expect(await refusal(await ask("/v1/files", form({ body })))).toMatchObject({
      status: 413,
      code: "body_too_large",
    });
    expect(counter.sent).toBeLessThan(10 * MAX);
  });
});

test("a deeply nested body is no way to exhaust the stack", async () => {
  for (const body of ["[".repeat(500_000), `${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`]) {
    const got = await refusal(await send("/admin/tenants", post(env.ADMIN_SECRET, {}, { body })));
    expect(got.status).toBe(400);
  }
});
