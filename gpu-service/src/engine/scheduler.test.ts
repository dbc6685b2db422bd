import fc from "fast-check";
import { expect, test } from "vitest";
import { type NewActor, World, type WorldOptions } from "./testing/scheduler-world.ts";
import type { EnginePriority } from "./types.ts";

const CHUNK = 8;
const interactive: EnginePriority = { class: "interactive", weight: 1 };
const batch: EnginePriority = { class: "batch", weight: 1 };

const world = (options: Partial<WorldOptions> = {}) =>
  new World({ maxRunning: 4, chunk: CHUNK, memory: Number.POSITIVE_INFINITY, ...options });

const request = (promptLength: number, wanted: number, rest: Partial<NewActor> = {}): NewActor => ({
  promptLength,
  wanted,
  depth: 1,
  priority: interactive,
  maxStep: 1,
  ...rest,
});

const newActor: fc.Arbitrary<NewActor> = fc.record({
  promptLength: fc.integer({ min: 1, max: 60 }),
  wanted: fc.integer({ min: 1, max: 30 }),
  depth: fc.constantFrom(1, 2, 4),
  priority: fc.record({ class: fc.constantFrom("interactive", "batch"), weight: fc.constantFrom(1, 3) }),
  maxStep: fc.constantFrom(1, 1, 9),
});

const action = fc.oneof(
  { weight: 8, arbitrary: fc.record({ type: fc.constant("step" as const), accept: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant("add" as const), actor: newActor }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("remove" as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("pause" as const), pick: fc.nat(), paused: fc.boolean() }) },
);
const actions = fc.array(action, { maxLength: 150, size: "max" });
const options = fc.record({
  maxRunning: fc.integer({ min: 1, max: 5 }),
  memory: fc.constantFrom(40, 150, 400, 1000, Number.POSITIVE_INFINITY),
  reuse: fc.constantFrom(0, 16),
});

/** Steps in which a running request may run nothing: others' prompts, its own chunks and the batch's turn. */
const patience = (promptLength: number, maxRunning: number) => Math.ceil(promptLength / CHUNK) + 8 + maxRunning;

test("whatever comes, goes, pauses and runs out of memory, every plan is sound, nobody is passed over for long, and all end", () => {
  fc.assert(
    fc.property(options, actions, ({ maxRunning, memory, reuse }, list) => {
      const w = world({ maxRunning, memory, reusable: () => reuse });
      const checkPatience = () => {
        for (const { idle, length } of w.actors.values()) {
          if (idle > patience(length, maxRunning)) throw new Error(`passed over for ${idle} steps`);
        }
      };
      for (const a of list) {
        const pick = "pick" in a ? [...w.actors.keys()][a.pick % Math.max(1, w.actors.size)] : undefined;
        if (a.type === "add") w.add(a.actor);
        else if (a.type === "step") w.step(() => a.accept);
        else if (pick !== undefined && a.type === "remove") w.remove(pick);
        else if (pick !== undefined && a.type === "pause") w.pause(pick, a.paused);
        checkPatience();
      }
      for (const id of w.actors.keys()) w.pause(id, false);
      const left = [...w.actors.values()];
      // One after the other, each begun anew a few times.
      const bound = left.reduce((sum, { length, wanted }) => sum + 10 * (length + wanted), 10);
      for (let steps = 0; w.actors.size > 0; steps++) {
        if (steps > bound) throw new Error(`${w.actors.size} requests do not end`);
        w.step();
        checkPatience();
      }
      expect(w.scheduler.next()).toBeUndefined();
    }),
  );
});

test("a long prompt holds decoding requests up by one chunk a step, and they lose no step", () => {
  const w = world();
  w.add(request(3, 50));
  w.add(request(5, 50, { maxStep: 9 }));
  w.step();
  w.step();
  w.add(request(20, 1));
  expect([w.step(), w.step(), w.step()]).toEqual([
    { admitted: ["r2"], preempted: [], prefill: { id: "r2", from: 0, to: 8, last: false }, decode: ["r0", "r1"] },
    { admitted: [], preempted: [], prefill: { id: "r2", from: 8, to: 16, last: false }, decode: ["r0", "r1"] },
    { admitted: [], preempted: [], prefill: { id: "r2", from: 16, to: 20, last: true }, decode: ["r0", "r1"] },
  ]);
});

test("requests beyond the limit wait and are admitted in order", () => {
  const w = world({ maxRunning: 1 });
  for (let i = 0; i < 3; i++) w.add(request(1, 5));
  expect(w.step()?.admitted).toEqual(["r0"]);
  expect([w.scheduler.running, w.scheduler.waiting]).toEqual([1, 2]);
  w.remove("r1");
  w.remove("r0");
  expect(w.step()?.admitted).toEqual(["r2"]);
  w.remove("r2");
  expect(w.step()).toBeUndefined();
});

test("a short prompt goes before a long one that came earlier", () => {
  const w = world();
  w.add(request(80, 1));
  w.step();
  w.add(request(4, 1));
  expect(w.step()?.prefill).toEqual({ id: "r1", from: 0, to: 4, last: true });
});

test("a long prompt ends although short ones never cease to come", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 15 }), fc.constantFrom(interactive, batch), (chunks, priority) => {
      const w = world({ maxRunning: 6 });
      const long = w.add(request(chunks * CHUNK, 1, { priority }));
      const bound = chunks * patience(chunks * CHUNK, 6);
      for (let step = 0; w.actors.has(long); step++) {
        if (step > bound) throw new Error("the long prompt starves");
        if (w.actors.size < 5) w.add(request(CHUNK, 1));
        w.step();
      }
    }),
    { numRuns: 30 },
  );
});

test("batch requests stand back while an interactive prompt is prefilled, but for each eighth step", () => {
  const w = world();
  w.add(request(1, 200, { priority: batch }));
  w.step();
  w.add(request(24 * CHUNK, 1));
  const turns = Array.from({ length: 24 }, () => w.step()?.decode.length ?? 0);
  expect(turns.filter((count) => count > 0).length).toBe(3);
  w.add(request(24 * CHUNK, 1, { priority: batch }));
  expect(Array.from({ length: 24 }, () => w.step()?.decode)).toEqual(Array.from({ length: 24 }, () => ["r0"]));
});

test("a batch request makes way for an interactive one, the latest first, and only as many as it takes", () => {
  const w = world({ maxRunning: 3 });
  for (let i = 0; i < 3; i++) w.add(request(10, 50, { priority: batch }));
  w.step();
  w.add(request(10, 1));
  expect(w.step()).toMatchObject({ preempted: ["r2"], admitted: ["r3"], prefill: { id: "r3" } });

  const tight = world({ memory: 70 });
  tight.add(request(38, 2, { priority: batch }));
  tight.add(request(8, 20, { priority: batch }));
  tight.step();
  tight.add(request(38, 2));
  // The small one is the latest, but its room is not needed once the large one has gone.
  expect(tight.step()).toMatchObject({ preempted: ["r0"], admitted: ["r2"] });
});

test("who lost its memory in a step is not admitted again in the same one, though others made more room", () => {
  const w = world({ memory: 100 });
  w.add(request(59, 50, { priority: batch }));
  w.step();
  w.add(request(29, 50, { priority: { class: "batch", weight: 3 } }));
  w.step();
  w.add(request(34, 50));
  w.add(request(9, 50));
  expect(w.step()).toMatchObject({ preempted: ["r1", "r0"], admitted: ["r2", "r3"] });
  expect(w.step()).toMatchObject({ preempted: [], admitted: ["r1"] });
});

test("a batch request makes way a few times only: it ends although interactive ones never cease to come", () => {
  const w = world({ maxRunning: 1 });
  const slow = w.add(request(20 * CHUNK, 20, { priority: batch }));
  for (let step = 0; w.actors.has(slow); step++) {
    if (step > 1000) throw new Error("the batch request starves");
    // Half of the time there is nobody else.
    if (step % 16 === 0) w.add(request(CHUNK, 8));
    w.step();
  }
  expect(w.finished.find(({ id }) => id === slow)?.preempted).toBeGreaterThan(0);
});

test("interactive requests do not make way for each other, and nobody makes way in vain", () => {
  const w = world({ memory: 60 });
  w.add(request(30, 10));
  w.add(request(10, 10, { priority: batch }));
  w.step();
  w.add(request(40, 1));
  expect(w.step()).toMatchObject({ preempted: [], admitted: [] });
});

test("when memory runs out, paused requests go first, then batch ones, then the latest", () => {
  const order = (prepare: (w: World) => void) => {
    const w = world({ memory: 100 });
    w.add(request(28, 90));
    w.add(request(28, 90, { priority: batch }));
    w.add(request(28, 90));
    for (let i = 0; i < 4; i++) w.step();
    prepare(w);
    const preempted: string[] = [];
    for (let i = 0; i < 60 && preempted.length < 2; i++) preempted.push(...(w.step()?.preempted ?? []));
    return preempted;
  };
  expect(order(() => {})).toEqual(["r1", "r2"]);
  expect(order((w) => w.pause("r0", true))).toEqual(["r0", "r1"]);
});

test("a preempted request begins again from 0, prompt and answer, and decodes on from its newest token", () => {
  const w = world({ maxRunning: 1 });
  w.add(request(10, 50, { priority: batch }));
  for (let i = 0; i < 9; i++) w.step();
  expect(w.actor("r0").length).toBe(18);
  w.add(request(1, 1));
  expect(w.step()).toMatchObject({ preempted: ["r0"], prefill: { id: "r1", last: true } });
  expect([w.step(), w.step(), w.step(), w.step()]).toEqual([
    { admitted: ["r0"], preempted: [], prefill: { id: "r0", from: 0, to: 8, last: false }, decode: [] },
    { admitted: [], preempted: [], prefill: { id: "r0", from: 8, to: 16, last: false }, decode: [] },
    { admitted: [], preempted: [], prefill: { id: "r0", from: 16, to: 17, last: false }, decode: [] },
    { admitted: [], preempted: [], prefill: undefined, decode: ["r0"] },
  ]);
});

test("a paused request runs nothing, waiting or running, and goes on where it was", () => {
  const w = world({ maxRunning: 2 });
  w.add(request(20, 5));
  w.add(request(1, 20));
  w.step();
  w.step();
  w.pause("r0", true);
  for (let i = 0; i < 5; i++) expect(w.step()).toMatchObject({ prefill: undefined, decode: ["r1"] });
  w.pause("r1", true);
  expect(w.step()).toBeUndefined();
  w.add(request(1, 1));
  w.pause("r2", true);
  expect(w.step()).toBeUndefined();
  w.pause("r0", false);
  expect(w.step()?.prefill).toEqual({ id: "r0", from: 8, to: 16, last: false });
});

test("what is at hand of a prompt is not run again, but its last position always is", () => {
  const w = world({ reusable: ({ promptLength }) => (promptLength > 30 ? 16 : promptLength) });
  w.add(request(40, 1));
  expect(w.step()?.prefill).toEqual({ id: "r0", from: 16, to: 24, last: false });
  w.add(request(9, 1));
  expect(w.step()?.prefill).toEqual({ id: "r1", from: 8, to: 9, last: true });
});

test("a request that fits nothing else still runs, alone", () => {
  const w = world({ memory: 10 });
  w.add(request(40, 3));
  w.add(request(1, 1));
  while (w.actors.size > 0) {
    expect(w.step()).toBeDefined();
    expect(w.running.length).toBeLessThanOrEqual(1);
  }
  expect(w.finished.map(({ id }) => id)).toEqual(["r0", "r1"]);
});
