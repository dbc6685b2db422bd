import type { ChatCompletion } from "@fathom/shared";
import { describe, expect, test } from "vitest";
import {
  CHAT,
  chat,
  complete,
  edgeWith,
  events,
  mainService,
  newTenant,
  post,
  refusal,
  StubService,
} from "../testing/edge.ts";

const CONFIDENCE = { exit: "confidence", threshold: 0.9, min_depth: 18 };
const SPECULATIVE = { exit: "speculative", min_depth: 18 };

describe("an exit policy", () => {
  test.each([
    [CONFIDENCE],
    [{ exit: "confidence" }],
    [{ exit: "confidence", threshold: "calibrated", max_depth: 24 }],
    [SPECULATIVE],
    [{ exit: "speculative", depth: 24 }],
    [{ exit: "fixed" }],
  ])("goes on as it is, and the depth that the edge chose caps it: %j", async (fathom) => {
    const tenant = await newTenant("pro");
    const response = await chat(tenant, { fathom });
    expect(response.status).toBe(200);
    const { body, claims } = await mainService.seen(response);
    expect(body.fathom).toEqual({ ...fathom, depth: 24 });
    expect(claims.max_depth).toBe(24);
    expect((await response.json<ChatCompletion>()).fathom).toMatchObject({ depth: 24, exit: fathom.exit });
  });

  test("is capped lower when the service is busy, not below its floor", async () => {
    const busy = await new StubService().set({ load: { running: 16, waiting: 44 } });
    const edge = edgeWith({ UPSTREAMS: busy.url });
    const { key } = await newTenant("enterprise");
    for (const [fathom, depth] of [
      [{ exit: "confidence", threshold: 0.9 }, 18],
      [{ ...CONFIDENCE, min_depth: 24 }, 24],
      [SPECULATIVE, 18],
    ] as const) {
      const response = await edge("/v1/chat/completions", post(key, { ...CHAT, fathom }));
      expect(response.headers.get("x-fathom-depth")).toBe(String(depth));
      const { body, claims } = await busy.seen(response);
      expect(body.fathom).toEqual({ ...fathom, depth });
      expect(claims.max_depth).toBe(depth);
    }
  });

  test("does not open depths that the plan does not", async () => {
    const tenant = await newTenant("pro");
    for (const exit of ["confidence", "speculative"]) {
      const deep = await refusal(await chat(tenant, { fathom: { exit, depth: 30 } }));
      expect(deep).toMatchObject({ status: 403, code: "depth_not_allowed", param: "fathom.depth" });
      const floor = await refusal(await chat(tenant, { fathom: { exit, min_depth: 30 } }));
      expect(floor).toMatchObject({ status: 403, code: "depth_not_allowed", param: "fathom.min_depth" });
    }
  });
});

// One layer-token costs one micro-USD; the prompt has three tokens.
describe("an answer is charged", () => {
  test.each([false, true])("the layers that confident tokens used (stream: %s)", async (stream) => {
    const tenant = await newTenant("exact");
    const response = await chat(tenant, { max_tokens: 4, stream, fathom: CONFIDENCE });
    const data = await events(response);
    expect(data.join("")).toContain('"exit":"confidence"');
    expect(await tenant.usage()).toMatchObject({ settled: 3 * 30 + 30 + 18 + 30 + 18, reserved: 0 });
  });

  test.each([false, true])("drafted tokens at the target depth, and not their drafts (stream: %s)", async (stream) => {
    const tenant = await newTenant("exact");
    const data = await events(await chat(tenant, { max_tokens: 4, stream, fathom: SPECULATIVE }));
    expect(data.join("")).toContain('"draft":{"depth":18,"proposed":8,"accepted":4}');
    expect(await tenant.usage()).toMatchObject({ settled: 3 * 30 + 4 * 30, reserved: 0 });
  });

  test("never more than was reserved, whatever the policy", async () => {
    // One layer-token costs one micro-USD here, too, and there are 2,000.
    const tenant = await newTenant("poor");
    let spent = 0;
    for (let i = 0; ; i++) {
      const fathom = i % 2 === 0 ? { exit: "confidence", threshold: 0.9 } : { exit: "speculative" };
      const response = await complete(tenant, { prompt: "hi", max_tokens: 10, fathom });
      if (response.status !== 200) {
        expect(response.status).toBe(402);
        break;
      }
      const { fathom: account } = await response.json<ChatCompletion>();
      spent += account.cost.micro_usd;
    }
    expect(spent).toBeLessThanOrEqual(2000);
    expect(await tenant.usage()).toMatchObject({ settled: spent, reserved: 0 });
  });
});

describe("the service", () => {
  test.each([
    ["free", 1],
    ["pro", 16],
    ["enterprise", 512],
  ])("is told how requests of %s wait: weight %d", async (plan, weight) => {
    const { claims } = await mainService.seen(await chat(await newTenant(plan)));
    expect(claims.priority).toEqual({ class: "interactive", weight });
  });

  test("is not told by a client how to treat it", async () => {
    const headers = { "x-fathom-priority": "batch", "x-fathom-timeout-ms": "1" };
    const response = await chat(await newTenant("free"), {}, { headers });
    const seen = await mainService.seen(response);
    expect(seen.headers).not.toHaveProperty("x-fathom-priority");
    expect(seen.headers).not.toHaveProperty("x-fathom-timeout-ms");
  });
});
