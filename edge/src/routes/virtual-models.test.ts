import type { ChatCompletion } from "@fathom/shared";
import { expect, test } from "vitest";
import { chat, complete, mainService, newTenant, refusal } from "../testing/edge.ts";

test.each([
  ["fathom", 24, "plan"],
  ["fathom@12", 12, "requested"],
  ["fathom-fast", 12, "requested"],
  ["fathom-balanced", 18, "requested"],
  ["fathom-best", 24, "requested"],
  ["stub-30@18", 18, "requested"],
  ["stub-30-fast", 12, "requested"],
])("%s runs at %d layers", async (model, depth, reason) => {
  const tenant = await newTenant("pro");
  const response = await chat(tenant, { model });
  const body = await response.json<ChatCompletion>();
  // The answer names the checkpoint that gave it, whatever it was called.
  expect(body).toMatchObject({ model: "stub-30", fathom: { depth, reason } });
  expect((await mainService.seen(response)).body.model).toBe(model.replace(/@.*|-(fast|balanced|best)$/, ""));
  expect((await complete(tenant, { model })).headers.get("x-fathom-depth")).toBe(String(depth));
});

test.each(["confidence", "speculative"])("fathom-%s sets the exit policy", async (exit) => {
  const response = await chat(await newTenant("pro"), { model: `fathom-${exit}` });
  expect((await response.json<ChatCompletion>()).fathom).toMatchObject({ depth: 24, exit, reason: "plan" });
});

test("the request's own wish refines the name", async () => {
  const response = await chat(await newTenant("pro"), { model: "fathom-confidence", fathom: { threshold: 0.9 } });
  expect((await mainService.seen(response)).body.fathom).toEqual({ exit: "confidence", threshold: 0.9, depth: 24 });
});

test.each([
  [
    { model: "fathom@18", fathom: { depth: 24 } },
    { status: 400, code: "invalid_request", param: "fathom.depth" },
  ],
  [{ model: "fathom@13" }, { status: 400, code: "invalid_depth", param: "model" }],
  [{ model: "fathom@30" }, { status: 403, code: "depth_not_allowed" }],
  [{ model: "fathom-huge" }, { status: 404, code: "model_not_found", param: "model" }],
])("%j is refused", async (more, error) => {
  const tenant = await newTenant("pro");
  expect(await refusal(await chat(tenant, more))).toMatchObject(error);
  expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0 });
});
