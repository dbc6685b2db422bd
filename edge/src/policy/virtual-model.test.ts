import type { ApiError, FathomRequest } from "@fathom/shared";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import shipped from "../../plans.json" with { type: "json" };
import { depthOffers } from "./depth-policy.ts";
import { parsePlans } from "./plan.ts";
import { dialOf, type ModelName, mergeDial, parseModelName, virtualNames } from "./virtual-model.ts";

const EXITS = [12, 18, 24, 30];
/** The shipped plans, one of these exits apart. */
const apart = {
  ...shipped,
  free: { ...shipped.free, depth: { min: "25%", max: "60%", default: "60%" } },
  pro: { ...shipped.pro, depth: { min: "40%", max: "80%", default: "80%" } },
};
const plans = parsePlans(apart, "test plans");
const plan = (name: string) => {
  const found = plans.get(name);
  if (!found) throw new Error(`no plan ${name}`);
  return found;
};

const IDS = ["SmolLM2-135M", "llama-fast", "a@b"];

test.each<[string, ModelName | undefined]>([
  ["fathom", { base: "fathom", choice: undefined }],
  ["fathom@18", { base: "fathom", choice: { kind: "depth", text: "18" } }],
  ["fathom@", { base: "fathom", choice: { kind: "depth", text: "" } }],
  ["fathom-fast", { base: "fathom", choice: { kind: "fast" } }],
  ["fathom-speculative", { base: "fathom", choice: { kind: "speculative" } }],
  ["SmolLM2-135M@24", { base: "SmolLM2-135M", choice: { kind: "depth", text: "24" } }],
  ["SmolLM2-135M-best", { base: "SmolLM2-135M", choice: { kind: "best" } }],
  // A checkpoint's own name comes first, and may be followed too.
  ["llama-fast", { base: "llama-fast", choice: undefined }],
  ["llama-fast-fast", { base: "llama-fast", choice: { kind: "fast" } }],
  ["a@b", { base: "a@b", choice: undefined }],
  ["a@b@12", { base: "a@b", choice: { kind: "depth", text: "12" } }],
  ["llama", undefined],
  ["Fathom", undefined],
  ["fathom-", undefined],
  ["fathom-constructor", undefined],
  ["-fast", undefined],
  ["@12", undefined],
  ["fast", undefined],
  ["", undefined],
])("takes '%s' apart", (name, parsed) => {
  expect(parseModelName(name, IDS)).toEqual(parsed);
});

function resolve(name: string, planName = "enterprise", wish?: FathomRequest): FathomRequest | undefined {
  const parsed = parseModelName(name, []);
  if (!parsed) throw new Error(`'${name}' was not known`);
  return mergeDial(name, dialOf(parsed, EXITS, plan(planName)), wish);
}

describe("a name becomes a wish:", () => {
  test.each<[string, string, FathomRequest | undefined]>([
    ["fathom", "pro", undefined],
    ["fathom@18", "pro", { depth: 18 }],
    // Known to the checkpoint: whether the plan reaches it, the depth policy says.
    ["fathom@30", "free", { depth: 30 }],
    ["fathom-fast", "free", { depth: 12 }],
    ["fathom-fast", "enterprise", { depth: 18 }],
    ["fathom-balanced", "free", { max_depth: 18 }],
    ["fathom-balanced", "pro", { max_depth: 18 }],
    ["fathom-balanced", "enterprise", { max_depth: 24 }],
    ["fathom-best", "free", { depth: 18 }],
    ["fathom-best", "enterprise", { depth: 30 }],
    ["fathom-confidence", "pro", { exit: "confidence" }],
    ["fathom-speculative", "pro", { exit: "speculative" }],
  ])("%s on %s", (name, planName, wish) => {
    expect(resolve(name, planName)).toEqual(wish);
  });

  test.each<[string, FathomRequest, FathomRequest]>([
    ["fathom", { depth: 12 }, { depth: 12 }],
    ["fathom@18", { depth: 18, exit: "confidence" }, { depth: 18, exit: "confidence" }],
    ["fathom@18", { min_depth: 12 }, { depth: 18, min_depth: 12 }],
    ["fathom-balanced", { max_depth: 18 }, { max_depth: 18 }],
    ["fathom-balanced", { max_depth: 30 }, { max_depth: 24 }],
    ["fathom-balanced", { depth: "auto" }, { depth: "auto", max_depth: 24 }],
    ["fathom-confidence", { threshold: 0.9, depth: 24 }, { exit: "confidence", threshold: 0.9, depth: 24 }],
  ])("%s refined by %j", (name, wish, merged) => {
    expect(resolve(name, "enterprise", wish)).toEqual(merged);
  });

  test.each<[string, FathomRequest, string]>([
    ["fathom@18", { depth: 24 }, "fathom.depth"],
    ["fathom@18", { depth: "auto" }, "fathom.depth"],
    ["fathom@18", { min_depth: 24 }, "fathom.min_depth"],
    ["fathom@18", { max_depth: 12 }, "fathom.max_depth"],
    ["fathom-fast", { depth: 30 }, "fathom.depth"],
    ["fathom-balanced", { depth: 30 }, "fathom.depth"],
    ["fathom-balanced", { min_depth: 30 }, "fathom.min_depth"],
    ["fathom-confidence", { exit: "fixed" }, "fathom.exit"],
  ])("%s contradicted by %j", (name, wish, param) => {
    const error = caught(() => resolve(name, "enterprise", wish));
    expect(error).toMatchObject({ code: "invalid_request", param });
    expect(error.message).toContain(`'${name}'`);
    expect(error.message).toContain(`'${param}'`);
  });

  test.each([
    "fathom@20",
    "fathom@0",
    "fathom@",
    "fathom@0x12",
    "fathom@1e1",
    "fathom@ 12",
    "fathom@-12",
    "fathom@auto",
  ])("%s names no exit", (name) => {
    expect(caught(() => resolve(name))).toMatchObject({
      code: "invalid_depth",
      param: "model",
      message: expect.stringContaining("12, 18, 24, 30"),
    });
  });
});

test("the names that a plan may use", () => {
  expect(virtualNames("fathom", EXITS, plan("free")).map(({ id }) => id)).toEqual([
    "fathom",
    "fathom@12",
    "fathom@18",
    "fathom-fast",
    "fathom-balanced",
    "fathom-best",
    "fathom-confidence",
    "fathom-speculative",
  ]);
  expect(virtualNames("m", [30], plan("enterprise")).map(({ id }) => id)).toEqual([
    "m@30",
    "m-fast",
    "m-balanced",
    "m-best",
  ]);
  expect(virtualNames("fathom", [30], plan("free"))).toEqual([]);
});

const anyExits = fc
  .uniqueArray(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 8 })
  .map((list) => list.toSorted((a, b) => a - b));
const anyPlan = fc.constantFrom(...plans.values());

test("a listed name is never refused, runs within the plan, and deeper names never run shallower", () => {
  fc.assert(
    fc.property(anyExits, anyPlan, fc.double({ min: 0, max: 0.99, noNaN: true }), (exits, own, load) => {
      const top = (id: string): number => {
        const parsed = parseModelName(id, []);
        if (!parsed) throw new Error(`listed, not known: ${id}`);
        const wish = mergeDial(id, dialOf(parsed, exits, own), undefined);
        return depthOffers({ planName: "p", plan: own, exits, load, wish })[0]?.depth ?? 0;
      };
      const names = virtualNames("fathom", exits, own);
      for (const { id, dial } of names) {
        const depth = top(id);
        expect(exits).toContain(depth);
        expect(depth).toBeLessThanOrEqual(dial.max_depth ?? dial.depth ?? depth);
      }
      if (names.length === 0) return;
      expect(top("fathom-fast")).toBeLessThanOrEqual(top("fathom-balanced"));
      expect(top("fathom-balanced")).toBeLessThanOrEqual(top("fathom-best"));
    }),
  );
});

test("whatever the name is, it is taken apart or unknown, and what was taken apart spells it", () => {
  fc.assert(
    fc.property(fc.string(), fc.array(fc.string({ minLength: 1 }), { maxLength: 3 }), (text, ids) => {
      for (const name of [text, `fathom${text}`, `fathom@${text}`, `${ids[0]}-${text}`]) {
        const parsed = parseModelName(name, ids);
        if (!parsed) continue;
        const { base, choice } = parsed;
        const end = choice === undefined ? "" : choice.kind === "depth" ? `@${choice.text}` : `-${choice.kind}`;
        expect(base + end).toBe(name);
      }
    }),
  );
});

function caught(run: () => unknown): ApiError {
  try {
    run();
  } catch (error) {
    return error as ApiError;
  }
  throw new Error("nothing was thrown");
}
