import fc from "fast-check";
import { expect, test } from "vitest";
import { Scheduler } from "./scheduler.ts";

test("a long prompt holds a decoding row up by one chunk at most", () => {
  const scheduler = new Scheduler({ maxRunning: 4, chunk: 8 });
  scheduler.add("short", 3);
  expect(scheduler.next()).toEqual({ id: "short", kind: "prefill", from: 0, to: 3, samples: true });
  scheduler.add("long", 20);
  const kinds = Array.from({ length: 8 }, () => scheduler.next()).map(
    (step) => `${step?.id} ${step?.from}-${step?.to}`,
  );
  expect(kinds).toEqual([
    "long 0-8",
    "short 3-4",
    "long 8-16",
    "short 4-5",
    "long 16-20",
    "short 5-6",
    "long 20-21",
    "short 6-7",
  ]);
});

test("rows beyond the limit wait and are admitted in order", () => {
  const scheduler = new Scheduler({ maxRunning: 1, chunk: 8 });
  scheduler.add("a", 1);
  scheduler.add("b", 1);
  scheduler.add("c", 1);
  expect(scheduler.next()?.id).toBe("a");
  expect([scheduler.running, scheduler.waiting]).toEqual([1, 2]);
  scheduler.remove("b");
  scheduler.remove("a");
  expect(scheduler.next()?.id).toBe("c");
  scheduler.remove("c");
  expect(scheduler.next()).toBeUndefined();
});

test("whatever comes and goes, every live row runs its positions in order, without gaps, and within one round of turns", () => {
  const action = fc.oneof(
    { weight: 6, arbitrary: fc.constant({ type: "step" as const }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant("add" as const), prompt: fc.integer({ min: 1, max: 40 }) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("remove" as const), pick: fc.nat() }) },
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), fc.integer({ min: 1, max: 4 }), (actions, maxRunning) => {
      const scheduler = new Scheduler({ maxRunning, chunk: 8 });
      const prompts = new Map<string, number>();
      const done = new Map<string, number>();
      const lastTurn = new Map<string, number>();
      let created = 0;
      let turns = 0;
      for (const a of actions) {
        if (a.type === "add") {
          const id = `r${created++}`;
          prompts.set(id, a.prompt);
          done.set(id, 0);
          scheduler.add(id, a.prompt);
        } else if (a.type === "remove") {
          const id = [...done.keys()][a.pick % Math.max(1, done.size)];
          if (id === undefined) continue;
          scheduler.remove(id);
          done.delete(id);
          lastTurn.delete(id);
        } else {
          const step = scheduler.next();
          expect(step === undefined).toBe(done.size === 0);
          if (!step) continue;
          const prompt = prompts.get(step.id) ?? 0;
          expect(step.from).toBe(done.get(step.id));
          expect(step.to - step.from).toBeLessThanOrEqual(step.kind === "prefill" ? 8 : 1);
          expect(step.samples).toBe(step.to >= prompt);
          if (step.kind === "prefill") expect(step.to).toBeLessThanOrEqual(prompt);
          done.set(step.id, step.to);
          turns++;
          const previous = lastTurn.get(step.id);
          if (previous !== undefined) expect(turns - previous).toBeLessThanOrEqual(2 * maxRunning);
          lastTurn.set(step.id, turns);
        }
        expect(scheduler.running).toBeLessThanOrEqual(maxRunning);
        expect(scheduler.running + scheduler.waiting).toBe(done.size);
      }
    }),
  );
});
