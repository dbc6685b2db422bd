import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { Backprop, type ExitLoss, type ExitTerm, type Teacher } from "./backprop.ts";
import type { Batch } from "./batch.ts";
import { frozenTensors, parseFrozen } from "./frozen.ts";
import { type Gradients, gradientNorm, type Parameters } from "./parameters.ts";
import { importTiny, type TinyModel } from "./testing/tiny-model.ts";

const root = temporaryFolder();
let open: Backprop | undefined;
afterEach(() => open?.close());

function backprop(model: TinyModel, freeze = ""): Backprop {
  open = new Backprop(model.architecture, { threads: 2, frozen: parseFrozen(freeze, model.architecture) });
  return open;
}

async function gradientsOf(engine: Backprop, model: TinyModel, terms: ExitTerm[], teacher?: Teacher) {
  const gradients: Gradients = new Map();
  const losses = await engine.run(model.parameters, model.batch, terms, gradients, { teacher });
  return { gradients, losses };
}

/** Other parameters of the same shapes: each value nudged, the same way every time. */
function nudged(parameters: Parameters): Parameters {
  return new Map(
    [...parameters].map(([name, values]) => [name, values.map((x, i) => x * (1 + 0.2 * Math.sin(i * 12.9898)))]),
  );
}

/** The parameters moved by `step` along the gradient's direction. */
function moved(parameters: Parameters, gradients: Gradients, step: number): Parameters {
  const scale = step / gradientNorm(gradients);
  return new Map(
    [...parameters].map(([name, values]) => {
      const g = gradients.get(name);
      return [name, g ? values.map((x, i) => x + scale * (g[i] ?? 0)) : values];
    }),
  );
}

function objective(losses: readonly ExitLoss[], terms: readonly ExitTerm[]): number {
  return losses.reduce((sum, { loss, kl = 0 }, i) => {
    const { weight = 0, distillWeight = 0 } = terms[i] ?? {};
    return sum + weight * loss + distillWeight * kl;
  }, 0);
}

function expectSame(actual: Gradients, expected: Gradients, tolerance = 1e-5): void {
  for (const [name, values] of expected) {
    const largest = values.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
    const other = actual.get(name) ?? new Float32Array();
    const worst = values.reduce((x, y, i) => Math.max(x, Math.abs(y - (other[i] ?? Number.NaN))), 0);
    expect(worst, name).toBeLessThanOrEqual(tolerance * largest);
  }
}

describe.each(["tied", "untied"] as const)("a %s head", (variant) => {
  let model: TinyModel;
  let terms: ExitTerm[];
  beforeAll(async () => {
    model = await importTiny(variant, join(root, variant));
    terms = model.exits.map((depth, i) => ({ depth, weight: 0.1 * (i + 1), distillWeight: 0.5 / (i + 1) }));
  });

  test("the gradient of cross-entropy and distillation is the slope of the loss", async () => {
    const engine = backprop(model);
    const teacher = nudged(model.parameters);
    const { gradients, losses } = await gradientsOf(engine, model, terms, teacher);
    for (const { kl } of losses) expect(kl).toBeGreaterThan(0);
    const step = 0.01;
    const at = async (side: number) => {
      const parameters = moved(model.parameters, gradients, side * step);
      return objective(await engine.run(parameters, model.batch, terms, new Map(), { teacher }), terms);
    };
    // Central differences of two widths, so that the curvature's share cancels.
    const difference = async (width: number) => ((await at(width)) - (await at(-width))) / (2 * width * step);
    const slope = (4 * (await difference(1)) - (await difference(2))) / 3;
    expect(Math.abs(slope / gradientNorm(gradients) - 1)).toBeLessThan(2e-3);
  });

  test("distilling from oneself is distilling from a copy of oneself", async () => {
    const engine = backprop(model);
    const shallow = terms.slice(0, 2);
    const self = await gradientsOf(engine, model, shallow, "self");
    const copy = await gradientsOf(engine, model, shallow, new Map(model.parameters));
    expect(self.losses).toEqual(copy.losses);
    expectSame(self.gradients, copy.gradients);
    expect(self.gradients.has(`layers.${model.architecture.layers - 1}.attn.o`)).toBe(false);
  });

  test("full depth learns nothing from itself", async () => {
    const depth = model.architecture.layers;
    const { gradients, losses } = await gradientsOf(
      backprop(model),
      model,
      [{ depth, weight: 0, distillWeight: 1 }],
      "self",
    );
    expect(losses[0]?.kl).toBeLessThan(1e-6);
    expect(gradientNorm(gradients)).toBeLessThan(1e-5);
  });

  test.each(["embeddings,layers:0-1", "embeddings,head,norm,layers:0", "layers:1-2", "head"])(
    "freezing %s leaves the other gradients as they are",
    async (freeze) => {
      const teacher = new Map(nudged(model.parameters));
      const frozen = frozenTensors(parseFrozen(freeze, model.architecture));
      for (const name of frozen) {
        const values = model.parameters.get(name);
        if (values) teacher.set(name, values);
      }
      const whole = await gradientsOf(backprop(model), model, terms, teacher);
      await open?.close();
      const part = await gradientsOf(backprop(model, freeze), model, terms, teacher);
      const expected = [...whole.gradients].filter(([name]) => !frozen.has(name));
      expect([...part.gradients.keys()].sort()).toEqual(expected.map(([name]) => name).sort());
      expectSame(part.gradients, new Map(expected));
      for (const [i, { loss, kl = 0 }] of part.losses.entries()) {
        expect(loss).toBeCloseTo(whole.losses[i]?.loss ?? 0, 5);
        expect(kl).toBeCloseTo(whole.losses[i]?.kl ?? 0, 5);
      }
    },
  );

  test("micro-batches weighted by their targets add up to the batch", async () => {
    const engine = backprop(model);
    const whole = await gradientsOf(engine, model, terms, "self");
    const halves = [0, 2].map((row) => rowsOf(model.batch, row, row + 2));
    const count = ({ labels }: Batch) => labels.filter((label, i) => label >= 0 && i % model.batch.length > 0).length;
    const sum: Gradients = new Map();
    for (const half of halves) {
      const scale = count(half) / count(model.batch);
      await engine.run(model.parameters, half, terms, sum, { teacher: "self", scale });
    }
    expectSame(sum, whole.gradients, 1e-4);
  });

  test("measuring gives training's losses, and full depth agrees with itself", async () => {
    const engine = backprop(model);
    const { losses } = await gradientsOf(engine, model, terms, "self");
    const scores = await engine.evaluate(model.parameters, model.batch, model.exits);
    for (const [i, { loss, targets, correct }] of scores.entries()) {
      expect(loss / targets).toBeCloseTo(losses[i]?.loss ?? 0, 5);
      expect(correct / targets).toBeCloseTo(losses[i]?.accuracy ?? 0, 9);
    }
    expect(scores.at(-1)?.agreed).toBe(scores.at(-1)?.targets);
  });
});

test("what to freeze is checked", async () => {
  const { architecture } = await importTiny("untied", join(root, "checked"));
  expect(() => parseFrozen("layers:0-99", architecture)).toThrow("'layers:0-99': the layers are 0-");
  expect(() => parseFrozen("body", architecture)).toThrow("'body' is none of embeddings, head, norm");
  expect(parseFrozen("", architecture).embeddings).toBe(false);
});

function rowsOf({ length, tokens, labels }: Batch, from: number, to: number): Batch {
  const cut = (values: Int32Array) => values.slice(from * length, to * length);
  return { rows: to - from, length, tokens: cut(tokens), labels: cut(labels) };
}
