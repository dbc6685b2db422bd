import { describe, expect, test } from "vitest";
import type { BatchDescription } from "../batch/batch-record.ts";
import {
  chatLine,
  createBatch,
  ended,
  jsonl,
  linesOf,
  showBatch,
  upload,
  uploaded,
  withKey,
} from "../testing/batches.ts";
import { mainService, newTenant, refusal, send } from "../testing/edge.ts";

describe("a batch", () => {
  test("of chats runs to its end: outputs in order, errors by themselves, half the price", async () => {
    // One layer-token costs one micro-USD, in a batch half of one.
    const tenant = await newTenant("exact");
    const lines = Array.from({ length: 20 }, (_, i) => chatLine(`c${i}`));
    lines[3] = chatLine("hot", {}, { temperature: 9 });
    lines[7] = chatLine("streamed", {}, { stream: true });
    lines[11] = chatLine("deep", {}, { model: "fathom@18" });
    const fileId = await uploaded(tenant, jsonl(lines));
    const made = await (await createBatch(tenant, fileId, { metadata: { run: "7" } })).json<BatchDescription>();
    expect(made).toMatchObject({
      object: "batch",
      status: "validating",
      metadata: { run: "7" },
      input_file_id: fileId,
    });

    const batch = await ended(tenant, made.id);
    expect(batch).toMatchObject({
      status: "completed",
      errors: null,
      request_counts: { total: 20, completed: 18, failed: 2 },
    });
    const outputs = await linesOf(tenant, batch.output_file_id);
    const answered = lines.map(({ custom_id }) => custom_id).filter((id) => id !== "hot" && id !== "streamed");
    expect(outputs.map(({ custom_id }) => custom_id)).toEqual(answered);
    for (const { custom_id, response, error } of outputs) {
      expect(error).toBeNull();
      expect(response).toMatchObject({
        status_code: 200,
        body: {
          choices: [{ message: { content: "w0 w1 w2 w3 w4" } }],
          fathom: { depth: custom_id === "deep" ? 18 : 30 },
        },
      });
    }
    const errors = await linesOf(tenant, batch.error_file_id);
    expect(errors.map(({ custom_id, response }) => [custom_id, response?.status_code])).toEqual([
      ["hot", 400],
      ["streamed", 400],
    ]);
    expect(errors[0]?.response?.body).toMatchObject({ error: { code: "invalid_request", param: "temperature" } });
    // Three words of prompt and five of answer.
    expect(await tenant.usage()).toMatchObject({ settled: (17 * 8 * 30 + 8 * 18) / 2, reserved: 0, inFlight: 0 });

    const ids = new Set(outputs.map(({ response }) => response?.request_id));
    const seen = (await mainService.requests()).filter(({ requestId }) => ids.has(requestId));
    expect(seen).toHaveLength(18);
    for (const { claims, headers } of seen) {
      expect(claims).toMatchObject({ priority: { class: "batch" }, cache_salt: tenant.name });
      expect(headers["x-fathom-price"]).toBe("500");
    }
  });

  test("of completions, with blank lines and a line feed at the end", async () => {
    const tenant = await newTenant();
    const url = "/v1/completions";
    const line = (id: string) => ({ custom_id: id, method: "POST", url, body: { model: "fathom", prompt: "a b" } });
    const fileId = await uploaded(tenant, `${JSON.stringify(line("a"))}\r\n\n${JSON.stringify(line("b"))}\n`);
    const { id } = await (await createBatch(tenant, fileId, { endpoint: url })).json<BatchDescription>();
    const batch = await ended(tenant, id);
    expect(batch).toMatchObject({ status: "completed", error_file_id: null });
    const outputs = await linesOf(tenant, batch.output_file_id);
    expect(outputs.map(({ response }) => response?.body.object)).toEqual(["text_completion", "text_completion"]);
  });

  test("that is not valid fails, and says every line that is wrong", async () => {
    const tenant = await newTenant();
    const text = [
      jsonl([chatLine("a")]),
      "nonsense",
      jsonl([chatLine("b", { method: "GET" }), chatLine("a"), chatLine("c", { url: "/v1/completions" })]),
      jsonl([chatLine("", {}), { custom_id: "d", method: "POST", url: "/v1/chat/completions" }]),
    ].join("\n");
    const { id } = await (await createBatch(tenant, await uploaded(tenant, text))).json<BatchDescription>();
    const batch = await ended(tenant, id);
    expect(batch).toMatchObject({ status: "failed", output_file_id: null, request_counts: { total: 0 } });
    expect(batch.errors?.data.map(({ line, code, param }) => [line, code, param]).toSorted()).toEqual([
      [2, "invalid_json_line", null],
      [3, "invalid_line", "method"],
      [4, "duplicate_custom_id", "custom_id"],
      [5, "mismatched_url", "url"],
      [6, "invalid_line", "custom_id"],
      [7, "invalid_line", "body"],
    ]);
    expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0 });
  });

  test("without a request fails", async () => {
    const tenant = await newTenant();
    const { id } = await (await createBatch(tenant, await uploaded(tenant, "\n \n"))).json<BatchDescription>();
    const { status, errors } = await ended(tenant, id);
    expect([status, errors?.data[0]?.code]).toEqual(["failed", "empty_file"]);
  });

  test("whose budget ends says so line by line, and overruns nothing", async () => {
    const tenant = await newTenant("poor");
    const lines = Array.from({ length: 12 }, (_, i) => chatLine(`c${i}`, {}, { max_tokens: 5 }));
    const { id } = await (await createBatch(tenant, await uploaded(tenant, jsonl(lines)))).json<BatchDescription>();
    const batch = await ended(tenant, id);
    expect(batch.status).toBe("completed");
    const errors = await linesOf(tenant, batch.error_file_id);
    expect(errors.length).toBeGreaterThan(0);
    for (const { response } of errors) expect(response?.body).toMatchObject({ error: { code: "insufficient_budget" } });
    expect((await tenant.usage()).settled).toBeLessThanOrEqual(2000);
  });

  test("that has ended cannot be cancelled", async () => {
    const tenant = await newTenant();
    const fileId = await uploaded(tenant, jsonl([chatLine("a")]));
    const { id } = await (await createBatch(tenant, fileId)).json<BatchDescription>();
    await ended(tenant, id);
    const got = await refusal(await send(`/v1/batches/${id}/cancel`, withKey(tenant, { method: "POST" })));
    expect(got).toMatchObject({ status: 400, code: "invalid_request" });
    expect((await showBatch(tenant, id)).status).toBe("completed");
  });

  test("is cancelled before it begins", async () => {
    const tenant = await newTenant("exact");
    const fileId = await uploaded(tenant, jsonl([chatLine("a"), chatLine("b")]));
    const { id } = await (await createBatch(tenant, fileId)).json<BatchDescription>();
    const response = await send(`/v1/batches/${id}/cancel`, withKey(tenant, { method: "POST" }));
    expect((await response.json<BatchDescription>()).status).toMatch(/cancell/);
    const batch = await ended(tenant, id);
    expect(batch.status).toBe("cancelled");
    for (const { error } of await linesOf(tenant, batch.error_file_id)) expect(error?.code).toBe("batch_cancelled");
  });
});

test("batches are listed page by page, newest first", async () => {
  const tenant = await newTenant();
  const fileId = await uploaded(tenant, jsonl([chatLine("a")]));
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) ids.push((await (await createBatch(tenant, fileId)).json<BatchDescription>()).id);
  const page = async (query: string) =>
    await (await send(`/v1/batches?${query}`, withKey(tenant))).json<{ data: { id: string }[]; has_more: boolean }>();
  const first = await page("limit=2");
  expect([first.data.length, first.has_more]).toEqual([2, true]);
  const rest = await page(`limit=2&after=${first.data[1]?.id}`);
  expect(rest.has_more).toBe(false);
  const listed = [...first.data, ...rest.data].map(({ id }) => id);
  // Ids of later batches sort before those of earlier ones; of one millisecond, either may come first.
  expect(listed).toEqual(ids.toSorted());
});

test.each([
  [{ endpoint: "/v1/embeddings" }, "endpoint"],
  [{ completion_window: "1h" }, "completion_window"],
  [{ metadata: { a: 5 } }, "metadata.a"],
  [{ input_file_id: 5 }, "input_file_id"],
])("%j is refused by name", async (more, param) => {
  const tenant = await newTenant();
  const fileId = await uploaded(tenant, jsonl([chatLine("a")]));
  expect(await refusal(await createBatch(tenant, fileId, more))).toMatchObject({ status: 400, param });
});

test("another tenant's files and batches are not there", async () => {
  const [own, other] = [await newTenant(), await newTenant()];
  const fileId = await uploaded(own, jsonl([chatLine("a")]));
  const { id } = await (await createBatch(own, fileId)).json<BatchDescription>();
  const notFound = { status: 404, code: "not_found" };
  for (const path of [`/v1/files/${fileId}`, `/v1/files/${fileId}/content`, `/v1/batches/${id}`]) {
    expect(await refusal(await send(path, withKey(other)))).toMatchObject(notFound);
    expect((await send(path, withKey(own))).status).toBe(200);
  }
  const remove = await send(`/v1/files/${fileId}`, withKey(other, { method: "DELETE" }));
  expect(await refusal(remove)).toMatchObject(notFound);
  const cancel = await send(`/v1/batches/${id}/cancel`, withKey(other, { method: "POST" }));
  expect(await refusal(cancel)).toMatchObject(notFound);
  expect(await refusal(await createBatch(other, fileId))).toMatchObject({ ...notFound, param: "input_file_id" });
  for (const path of ["/v1/files", "/v1/batches"]) {
    expect(await (await send(path, withKey(other))).json()).toMatchObject({ data: [], has_more: false });
  }
  for (const made of ["..", "batch_", `batch_${"0".repeat(36)}`, `${id}/`, `../${own.name}/${id}`]) {
    expect((await send(`/v1/batches/${encodeURIComponent(made)}`, withKey(other))).status).toBe(404);
  }
  expect((await upload(own, "x", "assistants")).status).toBe(400);
});
