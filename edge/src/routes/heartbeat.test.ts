import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { SILENCE_MS } from "../fleet/registry.ts";
import { CHAT, edgeWith, eventually, newTenant, post, refusal, StubService } from "../testing/edge.ts";
import { beatOf, postBeat, sendBeat, signBeat } from "../testing/heartbeats.ts";
import { sha256Hex } from "../upstream/sha256-hex.ts";
import { signServiceToken } from "../upstream/sign-token.ts";

const newPool = () => `p-${crypto.randomUUID().slice(0, 8)}`;
const urlsOf = async (pool: string) => (await env.FLEET.getByName(pool).snapshot([])).services.map(({ url }) => url);

describe("a service that registers", () => {
  test("answers beside those of UPSTREAMS, and its own capacity counts", async () => {
    const [pool, tenant] = [newPool(), await newTenant()];
    const fixed = await new StubService().set({ load: { running: 15, waiting: 0 } });
    const registered = new StubService();
    // 3 of 4 is less than 15 of 16.
    await sendBeat(beatOf(registered.url, { pool, load: { running: 3, waiting: 0, capacity: 4 } }));
    const edge = edgeWith({ UPSTREAMS: fixed.url, POOL: pool });
    const response = await edge("/v1/chat/completions", post(tenant.key, CHAT));
    expect(response.status).toBe(200);
    expect((await registered.seen(response)).end).toBe("finished");
    const { services } = await env.FLEET.getByName(pool).snapshot([fixed.url]);
    expect(services.map(({ url, load }) => [url, load])).toEqual([
      [registered.url, { running: 3, waiting: 0, capacity: 4 }],
      [fixed.url, { running: 15, waiting: 0 }],
    ]);
  });

  test("counts as full when its K/V memory is, however few requests it runs", async () => {
    const [pool, free] = [newPool(), await newTenant("free")];
    const service = new StubService();
    const load = { running: 1, waiting: 0, capacity: 16, kv_total_bytes: 1000, ms_per_token: 12.5 };
    const ask = async (kv_free_bytes: number) => {
      await sendBeat(beatOf(service.url, { pool, load: { ...load, kv_free_bytes } }));
      return await edgeWith({ UPSTREAMS: "", POOL: pool })("/v1/chat/completions", post(free.key, CHAT));
    };
    expect(await refusal(await ask(0))).toMatchObject({ status: 429, code: "overloaded" });
    expect((await env.FLEET.getByName(pool).snapshot([])).services[0]?.load).toMatchObject({
      ...load,
      kv_free_bytes: 0,
    });
  });

  test("is out when it is silent, and at once when it leaves", async () => {
    const pool = newPool();
    const [silent, leaving] = [new StubService().url, new StubService().url];
    const started = Date.now();
    await sendBeat(beatOf(silent, { pool }));
    await sendBeat(beatOf(leaving, { pool }));
    expect(await urlsOf(pool)).toEqual([silent, leaving]);
    await sendBeat(beatOf(leaving, { pool, state: "leaving" }));
    expect(await urlsOf(pool)).toEqual([silent]);
    expect(
      await eventually(
        () => urlsOf(pool),
        (urls) => urls.length === 0,
      ),
    ).toEqual([]);
    expect(Date.now() - started).toBeGreaterThan(SILENCE_MS);
  });

  test("is used in the order of the regions", async () => {
    const [pool, tenant] = [newPool(), await newTenant()];
    const [near, far] = [new StubService(), new StubService()];
    const edge = edgeWith({ UPSTREAMS: "", POOL: pool, REGION_ORDER: "eu,us" });
    const ask = async () => await edge("/v1/chat/completions", post(tenant.key, CHAT));
    const busy = { running: 3, waiting: 0, capacity: 4 };
    const say = async () => {
      await sendBeat(beatOf(far.url, { pool, region: "us" }));
      await sendBeat(beatOf(near.url, { pool, region: "eu", load: busy }));
    };
    await say();
    expect((await near.seen(await ask())).end).toBe("finished");
    await sendBeat(beatOf(near.url, { pool, region: "eu", state: "leaving" }));
    await eventually(
      async () => {
        await sendBeat(beatOf(far.url, { pool, region: "us" }));
        await ask();
        return await far.requests();
      },
      (seen) => seen.length > 0,
    );
    expect((await far.seen(await ask())).end).toBe("finished");
  });
});

test("without any service the refusal says so", async () => {
  const tenant = await newTenant();
  const edge = edgeWith({ UPSTREAMS: "", POOL: newPool() });
  const response = await edge("/v1/chat/completions", post(tenant.key, CHAT));
  expect(await refusal(response)).toMatchObject({ status: 503, code: "upstream_unavailable" });
});

describe("a heartbeat is refused", () => {
  const URL_OF_ITS_OWN = "http://10.9.8.7";
  const text = () => JSON.stringify(beatOf(URL_OF_ITS_OWN));

  test.each<[string, number, string, (body: string) => Promise<string | undefined>]>([
    ["without a signature", 401, "missing_api_key", async () => undefined],
    ["with the secret itself", 401, "invalid_api_key", async () => `Bearer ${env.SERVICE_SECRET}`],
    ["with the administrator's secret", 401, "invalid_api_key", async () => `Bearer ${env.ADMIN_SECRET}`],
    [
      "signed with another secret",
      401,
      "invalid_api_key",
      (body) => signBeat(body, {}, "another secret of 16 or more"),
    ],
    ["signed for another body", 401, "invalid_api_key", (body) => signBeat(`${body} `)],
    ["of another issuer", 401, "invalid_api_key", (body) => signBeat(body, { iss: "fathom-edge" })],
    ["that lasts an hour", 401, "invalid_api_key", (body) => signBeat(body, { exp: Date.now() / 1000 + 3600 })],
    [
      "with a token of the edge",
      401,
      "invalid_api_key",
      async (body) => {
        const body_sha256 = await sha256Hex(new TextEncoder().encode(body));
        return `Bearer ${await signServiceToken(env.SERVICE_SECRET, { jti: "x", max_depth: 1, body_sha256 })}`;
      },
    ],
  ])("%s", async (_, status, code, authorization) => {
    const body = text();
    expect(await refusal(await postBeat(body, await authorization(body)))).toMatchObject({ status, code });
    expect(await urlsOf("default")).not.toContain(URL_OF_ITS_OWN);
  });

  test.each([
    ["not valid yet", 300],
    ["expired", -300],
  ])("and the clock is named: %s", async (words, seconds) => {
    const iat = Math.floor(Date.now() / 1000) + seconds;
    const got = await refusal(await sendBeat(beatOf(URL_OF_ITS_OWN), { iat, exp: iat + 10 }));
    expect(got).toMatchObject({ status: 401, message: expect.stringContaining(words) });
  });

  test("when it is shown again, or comes after a later one", async () => {
    const pool = newPool();
    const [older, newer] = [beatOf(URL_OF_ITS_OWN, { pool }), beatOf(URL_OF_ITS_OWN, { pool, state: "leaving" })];
    expect((await sendBeat(newer)).status).toBe(204);
    for (const beat of [newer, older]) {
      expect(await refusal(await sendBeat(beat))).toMatchObject({ status: 400, param: "sent_at" });
    }
    expect(await urlsOf(pool)).toEqual([]);
  });

  test.each([
    ["file:///etc/passwd"],
    ["gopher://10.0.0.1"],
    ["//10.0.0.1"],
    ["http://user:pass@10.0.0.1"],
    ["http://10.0.0.1/?to=http://10.0.0.2"],
    ["http://10.0.0.1/#x"],
    ["javascript:alert(1)"],
    [""],
  ])("with the address %j, although it is signed", async (url) => {
    const pool = newPool();
    expect(await refusal(await sendBeat({ ...beatOf(URL_OF_ITS_OWN, { pool }), url }))).toMatchObject({
      status: 400,
      param: "url",
    });
    expect(await urlsOf(pool)).toEqual([]);
  });

  test.each([
    ["pool", "__proto__"],
    ["pool", "../other"],
    ["region", "EU 1"],
    ["state", "gone"],
    ["load", { running: -1, waiting: 0, capacity: 1 }],
    ["load", { running: 0, waiting: 0, capacity: 0 }],
    ["model", { id: "m" }],
  ])("with the %s %j", async (field, value) => {
    const got = await refusal(await sendBeat({ ...beatOf(URL_OF_ITS_OWN), [field]: value }));
    expect(got).toMatchObject({ status: 400, code: "invalid_request" });
    expect(got.param?.split(".")[0]).toBe(field);
  });

  test("when it is not JSON, or too long", async () => {
    expect(await refusal(await postBeat("{", await signBeat("{")))).toMatchObject({
      status: 400,
      code: "invalid_json",
    });
    const long = " ".repeat(2 ** 20 + 1);
    expect(await refusal(await postBeat(long, await signBeat(long)))).toMatchObject({ status: 413 });
  });
});
