import { env } from "cloudflare:workers";
import { type OutputUnit, Validator } from "@cfworker/json-schema";
import { describe, expect, test } from "vitest";
import { createApp } from "../app.ts";
import { parsePlans } from "../policy/plan.ts";
import { admin } from "../testing/admin.ts";
import { chatLine, createBatch, ended, jsonl, upload, uploaded, withKey } from "../testing/batches.ts";
import { chat, complete, events, newTenant, post, send } from "../testing/edge.ts";
import type { OpenApiDocument } from "./document.ts";

const document = await (await send("/openapi.json")).json<OpenApiDocument>();
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
);

/** What is wrong with a value that should be as a schema of the document says. */
function problems(schemaName: string, value: unknown): OutputUnit[] {
  const root = { components: document.components, $ref: `#/components/schemas/${schemaName}` };
  return new Validator(root as ConstructorParameters<typeof Validator>[0], "2020-12", false).validate(value).errors;
}

describe("the document", () => {
  test("describes every route but those between services and edge, and nothing else", () => {
    const app = createApp(parsePlans(JSON.parse(env.PLANS ?? "{}"), "PLANS"));
    const routes = app.routes
      .filter(({ method, path }) => method !== "ALL" && !path.startsWith("/internal/"))
      .map(({ method, path }) => `${method} ${path.replace(/:(\w+)/g, "{$1}")}`);
    const described = operations.map(({ method, path }) => `${method} ${path}`);
    expect(described.length).toBeGreaterThan(30);
    expect([...described].sort()).toEqual([...new Set(routes)].sort());
  });

  test("has no reference to nothing, and no schema that nothing refers to", () => {
    const refs = new Set([...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map(([, ref]) => ref));
    const names = Object.keys(document.components.schemas).map((name) => `#/components/schemas/${name}`);
    expect([...refs].sort()).toEqual(names.sort());
  });

  test("names every operation once, and every parameter of its path", () => {
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { path, operation } of operations) {
      const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      const described = (operation.parameters ?? []).filter(({ in: place }) => place === "path");
      expect(described.map(({ name }) => name)).toEqual(inPath);
    }
  });

  test("says who may call what, as it is", async () => {
    for (const { method, path, operation } of operations) {
      const response = await send(path.replace(/\{\w+\}/g, "x"), { method });
      await response.body?.cancel();
      const open = operation.security.length === 0;
      expect([path, response.status]).toEqual([path, open ? 200 : 401]);
      const scheme = path.startsWith("/admin/") ? "admin" : "apiKey";
      if (!open) expect(operation.security).toEqual([{ [scheme]: [] }]);
    }
  });

  test("may be read by pages of other origins", async () => {
    const response = await send("/openapi.json", { headers: { origin: "https://example.com" } });
    expect(response.headers.get("access-control-allow-origin")).toBe("*");
  });
});

/** Name of the schema that an operation answers with. */
function answerSchema(method: string, path: string, status: number, mediaType = "application/json"): string {
  const response = document.paths[path]?.[method]?.responses[String(status)];
  const ref = response?.content?.[mediaType]?.schema?.$ref;
  return ref?.split("/").at(-1) ?? `nothing for ${method} ${path} ${status}`;
}

/** Checks a real answer against what the document says of it. */
async function check(method: string, path: string, response: Response): Promise<unknown> {
  const schema = answerSchema(method, path, response.status);
  const value: unknown = await response.json();
  expect([path, response.status, problems(schema, value)]).toEqual([path, response.status, []]);
  const described = Object.keys(document.components.schemas[schema]?.properties ?? {});
  expect(described).toEqual(expect.arrayContaining(Object.keys(value as object)));
  return value;
}

describe("real answers are as it says", () => {
  test("texts, streams and models", async () => {
    const tenant = await newTenant();
    await check("post", "/v1/chat/completions", await chat(tenant));
    await check("post", "/v1/completions", await complete(tenant));
    const schema = answerSchema("post", "/v1/chat/completions", 200, "text/event-stream");
    const chunks = await events(await chat(tenant, { stream: true, stream_options: { include_usage: true } }));
    expect(chunks.at(-1)).toBe("[DONE]");
    for (const chunk of chunks.slice(0, -1)) expect(problems(schema, JSON.parse(chunk))).toEqual([]);
    await check("get", "/v1/models", await send("/v1/models", withKey(tenant)));
    await check("get", "/v1/models/{id}", await send("/v1/models/fathom-fast", withKey(tenant)));
    await check("post", "/v1/policy/explain", await send("/v1/policy/explain", post(tenant.key, {})));
  });

  test("errors, each with a status that is described", async () => {
    const tenant = await newTenant("free");
    const path = "/v1/chat/completions";
    await check("post", path, await chat(tenant, { messages: [] }));
    await check("post", path, await chat(tenant, { fathom: { depth: 30 } }));
    await check("post", path, await chat(tenant, { model: "none" }));
    await check("post", path, await chat({ ...tenant, key: "wrong" }));
    await check("post", path, await chat(await newTenant("poor"), { max_tokens: 2000 }));
    await check("get", "/v1/files/{id}", await send("/v1/files/none", withKey(tenant)));
    await check("get", "/admin/tenants/{tenant}", await admin("GET", "/tenants/nobody-here"));
  });

  test("files and batches", async () => {
    const tenant = await newTenant();
    const input = jsonl([chatLine("a"), chatLine("b", {}, { messages: [] })]);
    await check("post", "/v1/files", await upload(tenant, input));
    const fileId = await uploaded(tenant, input);
    const batch = await check("post", "/v1/batches", await createBatch(tenant, fileId, { metadata: { a: "b" } }));
    const { id } = batch as { id: string };
    await ended(tenant, id);
    await check("get", "/v1/batches/{id}", await send(`/v1/batches/${id}`, withKey(tenant)));
    await check("get", "/v1/batches", await send("/v1/batches", withKey(tenant)));
    await check("get", "/v1/files", await send("/v1/files", withKey(tenant)));
    await check("get", "/v1/files/{id}", await send(`/v1/files/${fileId}`, withKey(tenant)));
    const gone = await send(`/v1/files/${fileId}`, withKey(tenant, { method: "DELETE" }));
    await check("delete", "/v1/files/{id}", gone);
  });

  test("tenants, keys and the log", async () => {
    const tenant = `t-${crypto.randomUUID()}`;
    const at = `/tenants/${tenant}`;
    await check("post", "/admin/tenants", await admin("POST", "/tenants", { tenant, plan: "pro" }));
    await check("get", "/admin/tenants", await admin("GET", "/tenants"));
    await check("get", "/admin/tenants/{tenant}", await admin("GET", at));
    await check("patch", "/admin/tenants/{tenant}", await admin("PATCH", at, { monthly_budget_micro_usd: 7 }));
    await check("get", "/admin/tenants/{tenant}/usage", await admin("GET", `${at}/usage`));
    await check("get", "/admin/plans", await admin("GET", "/plans"));
    const made = await check("post", "/admin/tenants/{tenant}/keys", await admin("POST", `${at}/keys`, {}));
    const { id } = made as { id: string };
    await check("post", "/admin/keys", await admin("POST", "/keys", { tenant, plan: "pro" }));
    await check("get", "/admin/tenants/{tenant}/keys", await admin("GET", `${at}/keys`));
    await check("get", "/admin/keys/{id}", await admin("GET", `/keys/${id}`));
    await check("patch", "/admin/keys/{id}", await admin("PATCH", `/keys/${id}`, { label: "x" }));
    const rotated = await check("post", "/admin/keys/{id}/rotate", await admin("POST", `/keys/${id}/rotate`));
    const next = (rotated as { id: string }).id;
    await check("post", "/admin/keys/{id}/revoke", await admin("POST", `/keys/${next}/revoke`));
    await check("get", "/admin/audit", await admin("GET", `/audit?tenant=${tenant}`));
    const situation = { plan: "pro", exits: [12, 18, 24, 30], load: 0 };
    await check("post", "/admin/policy/explain", await admin("POST", "/policy/explain", situation));
  });

  test("the check finds what is wrong", () => {
    expect(problems("Tenant", { id: "a", object: "tenant" })).not.toEqual([]);
    expect(problems("AuditList", { object: "list", data: [{}] })).not.toEqual([]);
  });
});
