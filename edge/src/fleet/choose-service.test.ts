import { expect, test } from "vitest";
import { servicesFor } from "./choose-service.ts";
import type { Candidate } from "./pool-view.ts";

function candidate(url: string, id: string, depths = [12, 30]): Candidate {
  const exits = depths.map((depth) => ({ depth, parameters: 1, bytes: 1 }));
  const fathom = { layers: 30, context_length: 100, exits, bytes: 1, parameters: 1 };
  const model = { id, object: "model" as const, created: 0, owned_by: "fathom", fathom };
  return {
    service: { url, region: undefined, load: { running: 0, waiting: 0 }, model },
    load: 0,
    lastLoad: 0,
    region: 0,
    rests: false,
  };
}

const urls = (candidates: readonly Candidate[]) => candidates.map(({ service }) => service.url);

test("keeps the order of the services that run the model", () => {
  const pool = [candidate("1", "a"), candidate("2", "b"), candidate("3", "a")];
  expect(urls(servicesFor(pool, "a"))).toEqual(["1", "3"]);
  expect(urls(servicesFor(pool, "b"))).toEqual(["2"]);
  expect(urls(servicesFor(pool, "fathom"))).toEqual(["1", "3"]);
});

test("leaves out services with other exits, since the depth is chosen for all", () => {
  const pool = [candidate("1", "a"), candidate("2", "a", [30]), candidate("3", "a")];
  expect(urls(servicesFor(pool, "a"))).toEqual(["1", "3"]);
});

test("a service that is left alone is not asked, as long as there are others", () => {
  const resting = { ...candidate("1", "a"), rests: true };
  expect(urls(servicesFor([resting, candidate("2", "a")], "a"))).toEqual(["2"]);
  expect(urls(servicesFor([resting, candidate("2", "b")], "a"))).toEqual(["1"]);
});

test("services of a later region are left out as long as one of an earlier region is well", () => {
  const [near, far] = [candidate("1", "a"), { ...candidate("2", "a"), region: 1 }];
  expect(urls(servicesFor([near, far], "a"))).toEqual(["1"]);
  expect(urls(servicesFor([{ ...near, rests: true }, far], "a"))).toEqual(["2"]);
  expect(urls(servicesFor([candidate("1", "b"), far], "a"))).toEqual(["2"]);
});

test("says which models there are", () => {
  const pool = [candidate("1", "a"), candidate("2", "b"), candidate("3", "a")];
  expect(() => servicesFor(pool, "c")).toThrow("'model': there is no model 'c'; there is 'a', 'b'");
});
