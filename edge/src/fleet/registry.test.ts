import type { Heartbeat } from "@fathom/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Registry, SILENCE_MS } from "./registry.ts";

const beat = (sent_at: number, more: Partial<Heartbeat> = {}): Heartbeat => ({
  url: "http://10.0.0.1",
  pool: "default",
  state: "ready",
  sent_at,
  load: { running: 0, waiting: 0, capacity: 4 },
  model: { id: "m", object: "model", created: 0, owned_by: "fathom" },
  ...more,
});
const urls = (registry: Registry, now: number) => registry.present(now).map(({ url }) => url);

test("a service that is silent for more than two seconds is out, and back with its next word", () => {
  const registry = new Registry();
  registry.take(beat(1), 1000);
  expect(urls(registry, 1000 + SILENCE_MS)).toEqual(["http://10.0.0.1"]);
  expect(urls(registry, 1001 + SILENCE_MS)).toEqual([]);
  registry.take(beat(2), 9000);
  expect(urls(registry, 9000)).toEqual(["http://10.0.0.1"]);
});

test("a service that leaves is out at once, and what it said before does not bring it back", () => {
  const registry = new Registry();
  registry.take(beat(1), 0);
  expect(registry.take(beat(3, { state: "leaving" }), 10)).toBe("taken");
  expect(urls(registry, 10)).toEqual([]);
  expect([registry.take(beat(1), 11), registry.take(beat(2), 12), registry.take(beat(3), 13)]).toEqual([
    "old",
    "old",
    "old",
  ]);
  expect(urls(registry, 14)).toEqual([]);
  expect(registry.take(beat(4), 15)).toBe("taken");
});

test("has room for a thousand, and again when some are long gone", () => {
  const registry = new Registry();
  for (let i = 0; i < 1000; i++) registry.take(beat(1, { url: `http://10.0.0.1:${i + 1}` }), 0);
  expect(registry.take(beat(1, { url: "http://10.0.0.2" }), 1)).toBe("full");
  expect(registry.take(beat(2, { url: "http://10.0.0.1:7" }), 1)).toBe("taken");
  expect(registry.take(beat(1, { url: "http://10.0.0.2" }), 300_001)).toBe("taken");
});

test("whatever order words come in, the latest that was sent counts", () => {
  const words = fc.array(fc.record({ sent: fc.nat(30), leaving: fc.boolean() }), { minLength: 1 });
  fc.assert(
    fc.property(words, (given) => {
      const registry = new Registry();
      let latest = given[0];
      for (const word of given) {
        registry.take(beat(word.sent, { state: word.leaving ? "leaving" : "ready" }), 0);
        if (latest === undefined || word.sent > latest.sent) latest = word;
      }
      expect(urls(registry, 0)).toHaveLength(latest?.leaving ? 0 : 1);
    }),
  );
});
