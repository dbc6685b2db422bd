import { beforeAll, expect, test } from "vitest";
import { admin, answered } from "../testing/admin.ts";
import { chatLine, createBatch, ended, jsonl, uploaded, withKey } from "../testing/batches.ts";
import { chat, newTenant, post, refusal, send, type TestTenant } from "../testing/edge.ts";

const NOT_FOUND = { status: 404, code: "not_found" };

let owner: TestTenant;
let other: TestTenant;
let fileId: string;
let batchId: string;
let outputId: string;

beforeAll(async () => {
  owner = await newTenant("exact");
  other = await newTenant("exact");
  fileId = await uploaded(owner, jsonl([chatLine("a")]));
  batchId = (await (await createBatch(owner, fileId)).json<{ id: string }>()).id;
  outputId = (await ended(owner, batchId)).output_file_id ?? "";
  expect(outputId).not.toBe("");
});

test("another tenant's files and batches are not there, whatever is asked of them", async () => {
  const asked: [string, string][] = [
    ["GET", `/v1/files/${fileId}`],
    ["GET", `/v1/files/${fileId}/content`],
    ["GET", `/v1/files/${outputId}/content`],
    ["DELETE", `/v1/files/${fileId}`],
    ["GET", `/v1/batches/${batchId}`],
    ["POST", `/v1/batches/${batchId}/cancel`],
  ];
  for (const [method, path] of asked) {
    expect(await refusal(await send(path, withKey(other, { method })))).toMatchObject(NOT_FOUND);
  }
  expect(await refusal(await createBatch(other, fileId))).toMatchObject({ ...NOT_FOUND, param: "input_file_id" });
  expect((await send(`/v1/files/${fileId}`, withKey(owner))).status).toBe(200);
});

test("paths do not lead into another tenant's files", async () => {
  const paths = [`../${owner.name}/${fileId}`, `%2e%2e%2f${owner.name}%2f${fileId}`, `${owner.name}%2F${fileId}`];
  for (const path of paths) {
    for (const suffix of ["", "/content"]) {
      expect((await refusal(await send(`/v1/files/${path}${suffix}`, withKey(other)))).status).toBe(404);
    }
    expect((await refusal(await send(`/v1/batches/${path}`, withKey(other)))).status).toBe(404);
  }
});

test("lists hold one's own only, also after another's cursor", async () => {
  for (const query of ["", `?after=${fileId}`, `?after=${batchId}`, `?after=../${owner.name}/`, "?limit=10&after="]) {
    for (const path of ["/v1/files", "/v1/batches"]) {
      expect(await answered(200, send(path + query, withKey(other)))).toMatchObject({ data: [] });
    }
  }
});

test("one tenant's requests, suspension and budget are not another's", async () => {
  const before = await other.usage();
  expect((await chat(owner)).status).toBe(200);
  expect(await other.usage()).toEqual(before);
  await answered(200, admin("PATCH", `/tenants/${owner.name}`, { status: "suspended", monthly_budget_micro_usd: 0 }));
  expect((await refusal(await chat(owner))).status).toBe(403);
  expect((await chat(other)).status).toBe(200);
  await answered(200, admin("PATCH", `/tenants/${owner.name}`, { status: "active", monthly_budget_micro_usd: null }));
});

test("what explains a depth tells of one's own budget", async () => {
  const explain = async (tenant: TestTenant) =>
    await answered<{ remaining_micro_usd: number }>(200, send("/v1/policy/explain", post(tenant.key, {})));
  const { settled } = await owner.usage();
  const [own, others] = [await explain(owner), await explain(await newTenant("exact"))];
  expect(others.remaining_micro_usd - own.remaining_micro_usd).toBe(settled);
});

test("names that are alike are not the same tenant", async () => {
  const name = crypto.randomUUID();
  const names = [name, `${name}.`, `${name}-`, name.toUpperCase(), `A${name}`];
  const keys = [];
  for (const tenant of names) {
    const { key } = await answered<{ key: string }>(201, admin("POST", "/keys", { tenant, plan: "exact" }));
    keys.push(key);
  }
  await answered(200, admin("PATCH", `/tenants/${name}`, { status: "suspended" }));
  const statuses = await Promise.all(
    keys.map(async (key) => (await send("/v1/models", { headers: { authorization: `Bearer ${key}` } })).status),
  );
  expect(statuses).toEqual([403, 200, 200, 200, 200]);
});
