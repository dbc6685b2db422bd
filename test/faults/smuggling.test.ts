import { request } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SECRET, type ServiceProcess, serviceProcess } from "../service/helpers/service-process.ts";
import { type TinyCheckpoint, tinyCheckpoint } from "../service/helpers/tiny-checkpoint.ts";
import { type FaultEdge, faultEdge, type Tenant } from "./helpers/fault-edge.ts";
import { type FaultProxy, faultProxy } from "./helpers/fault-proxy.ts";

let checkpoint: TinyCheckpoint;
let service: ServiceProcess;
let proxy: FaultProxy;
let edge: FaultEdge;
let tenant: Tenant;

beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
  service = await serviceProcess(checkpoint.dir, ["--threads", "1"]);
  proxy = await faultProxy(service.url);
  edge = await faultEdge({ UPSTREAMS: proxy.url });
  tenant = await edge.newTenant();
});

afterAll(async () => {
  await Promise.all([edge?.stop(), proxy?.stop(), service?.stop()]);
  await checkpoint?.remove();
});

const BODY = JSON.stringify({ model: "fathom", messages: [{ role: "user", content: "Hi" }], max_tokens: 1 });

/** A chat with headers that `fetch` would not send. */
async function chat(headers: Record<string, string | string[]>): Promise<number> {
  return await new Promise((resolve, reject) => {
    const asked = request(
      `${edge.url}/v1/chat/completions`,
      {
        method: "POST",
        headers: { authorization: `Bearer ${tenant.key}`, "content-type": "application/json", ...headers },
      },
      (response) => response.resume().on("end", () => resolve(response.statusCode ?? 0)),
    );
    asked.on("error", reject).end(BODY);
  });
}

test("over the wire, no header of the client comes out at the service", async () => {
  const smuggled = {
    connection: "keep-alive, x-fathom-price, authorization",
    "proxy-connection": "keep-alive",
    "keep-alive": "timeout=999",
    te: "trailers",
    trailer: "x-fathom-price",
    "proxy-authorization": `Bearer ${SECRET}`,
    "x-fathom-price": "0",
    "x-fathom-reason": "requested",
    "x-fathom-priority": "interactive",
    "x-fathom-timeout-ms": "1",
    "x-request-id": "someone-elses",
    "cf-connecting-ip": "127.0.0.1",
    "cf-ray": "1234",
    "x-forwarded-for": "127.0.0.1",
    "x-http-method-override": "DELETE",
    cookie: "a=b",
  };
  expect(await chat(smuggled)).toBe(200);
  const headers = proxy.seen.at(-1) ?? {};
  for (const [name, value] of Object.entries(smuggled)) expect(headers[name], name).not.toBe(value);
  const ours = ["accept-encoding", "authorization", "content-length", "content-type", "host"];
  const edges = ["x-fathom-price", "x-fathom-reason", "x-request-id"];
  const cloudflares = ["cf-worker", "cf-ew-via", "cdn-loop", "connection", "transfer-encoding", "user-agent"];
  expect(Object.keys(headers).filter((name) => ![...ours, ...edges, ...cloudflares].includes(name))).toEqual([]);
  expect(headers.authorization).not.toContain(tenant.key);
});

test("a token that was seen on the wire opens the service no second time, with this body or another", async () => {
  expect(await chat({})).toBe(200);
  const { authorization } = proxy.seen.at(-1) ?? {};
  const replay = async (body: string) => {
    const headers = { authorization: authorization ?? "", "content-type": "application/json" };
    const response = await fetch(`${service.url}/v1/chat/completions`, { method: "POST", headers, body });
    await response.text();
    return response.status;
  };
  expect(authorization).toMatch(/^Bearer /);
  expect(await replay(BODY)).toBe(401);
  expect(await replay(BODY.replace("Hi", "Ho"))).toBe(401);
  expect(await service.logged(({ msg }) => msg === "not authorised")).toMatchObject({
    reason: expect.stringContaining("used before"),
  });
});
