import OpenAI, { toFile } from "openai";
import { expect, test } from "vitest";
import { chatLine, jsonl, upload, uploaded, withKey } from "../testing/batches.ts";
import { edgeWith, eventually, newTenant, refusal, send } from "../testing/edge.ts";

test("a file is stored, described, listed, read and deleted", async () => {
  const tenant = await newTenant();
  const made = await (await upload(tenant, "Blätter\n")).json<{ id: string }>();
  expect(made).toMatchObject({ object: "file", bytes: 9, filename: "input.jsonl", purpose: "batch" });
  const path = `/v1/files/${made.id}`;
  expect(await (await send(path, withKey(tenant))).json()).toEqual(made);
  const list = await (await send("/v1/files?purpose=batch", withKey(tenant))).json<{ data: unknown[] }>();
  expect(list.data).toEqual([made]);
  expect(await (await send("/v1/files?purpose=batch_output", withKey(tenant))).json()).toMatchObject({ data: [] });
  const content = await send(`${path}/content`, withKey(tenant));
  expect(content.headers.get("content-disposition")).toBe("attachment");
  expect(new TextDecoder().decode(await content.arrayBuffer())).toBe("Blätter\n");
  const gone = await send(path, withKey(tenant, { method: "DELETE" }));
  expect(await gone.json()).toEqual({ id: made.id, object: "file", deleted: true });
  expect(await refusal(await send(path, withKey(tenant)))).toMatchObject({ status: 404, code: "not_found" });
});

test("a file of many parts comes back as it was", async () => {
  const tenant = await newTenant();
  const bytes = new Uint8Array(19_000_000);
  for (let i = 0; i < bytes.length; i += 997) bytes[i] = i % 251;
  const id = await uploaded(tenant, new TextDecoder("latin1").decode(bytes));
  const back = await (await send(`/v1/files/${id}/content`, withKey(tenant))).text();
  expect(back).toBe(new TextDecoder("latin1").decode(bytes));
});

const form = (fields: Record<string, string | File>): FormData => {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) data.set(name, value);
  return data;
};

test.each<[string, BodyInit, Record<string, string>, string, string | null]>([
  ["no form", "x", { "content-type": "text/plain" }, "invalid_request", "content-type"],
  ["a broken form", "x", { "content-type": "multipart/form-data; boundary=b" }, "invalid_request", "content-type"],
  ["no boundary", "x", { "content-type": "multipart/form-data; a=b" }, "invalid_request", "content-type"],
  ["no purpose", form({ file: new File(["x"], "a") }), {}, "invalid_request", "purpose"],
  ["another purpose", form({ file: new File(["x"], "a"), purpose: "vision" }), {}, "invalid_request", "purpose"],
  ["no file", form({ purpose: "batch" }), {}, "invalid_request", "file"],
  ["an empty file", form({ purpose: "batch", file: new File([], "a") }), {}, "invalid_request", "file"],
  ["a long field", form({ purpose: "x".repeat(5000) }), {}, "invalid_request", "content-type"],
])("refuses %s", async (_, body, headers, code, param) => {
  const tenant = await newTenant();
  const init = withKey(tenant, { method: "POST", body });
  const response = await send("/v1/files", { ...init, headers: { ...init.headers, ...headers } });
  expect(await refusal(response)).toMatchObject({ status: 400, code, param });
  expect(await (await send("/v1/files", withKey(tenant))).json()).toMatchObject({ data: [] });
});

test("refuses a file beyond the setting and stores nothing of it", async () => {
  const tenant = await newTenant();
  const edge = edgeWith({ BATCH_MAX_FILE_MEGABYTES: "1" });
  for (const size of [1_000_001, 1_500_000]) {
    const body = form({ purpose: "batch", file: new File(["x".repeat(size)], "a") });
    const response = await edge("/v1/files", withKey(tenant, { method: "POST", body }));
    expect(await refusal(response)).toMatchObject({ status: 413, code: "body_too_large" });
  }
  expect(await (await send("/v1/files", withKey(tenant))).json()).toMatchObject({ data: [] });
});

test("OpenAI's client: models, virtual models, and a batch from end to end", async () => {
  const tenant = await newTenant("pro");
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const request = new Request(input, init);
    return await send(request.url.replace("https://edge.test", ""), request);
  };
  const client = new OpenAI({ baseURL: "https://edge.test/v1", apiKey: tenant.key, maxRetries: 0, fetch });

  const models: string[] = [];
  for await (const { id } of client.models.list()) models.push(id);
  expect(models).toContain("fathom@12");
  const messages = [{ role: "user" as const, content: "one two" }];
  expect(await client.chat.completions.create({ model: "fathom@12", messages })).toHaveProperty("fathom.depth", 12);

  const file = await client.files.create({
    file: await toFile(new TextEncoder().encode(jsonl([chatLine("a"), chatLine("b")])), "requests.jsonl"),
    purpose: "batch",
  });
  const created = await client.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
  const batch = await eventually(
    () => client.batches.retrieve(created.id),
    ({ status }) => status === "completed",
  );
  const text = await (await client.files.content(batch.output_file_id ?? "")).text();
  expect(text.trimEnd().split("\n")).toHaveLength(2);
  expect(batch.request_counts).toEqual({ total: 2, completed: 2, failed: 0 });
  const batches: string[] = [];
  for await (const { id } of client.batches.list({ limit: 1 })) batches.push(id);
  expect(batches).toEqual([created.id]);
  expect((await client.files.delete(file.id)).deleted).toBe(true);
  await expect(client.batches.cancel(created.id)).rejects.toThrow(OpenAI.BadRequestError);
});
