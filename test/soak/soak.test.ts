import { afterAll, beforeAll, expect, test } from "vitest";
import { TINY_EXITS, TINY_NAME, type TinyCheckpoint, tinyCheckpoint } from "../service/helpers/tiny-checkpoint.ts";
import { soak } from "./soak.ts";

let checkpoint: TinyCheckpoint;
beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
});
afterAll(() => checkpoint?.remove());

test("some seconds of overload, departures and nonsense leave nothing behind", async () => {
  const { counts, violations, left } = await soak({
    dir: checkpoint.dir,
    model: TINY_NAME,
    exits: TINY_EXITS,
    seconds: 8,
    clients: 24,
    args: ["--threads", "1"],
  });
  expect(violations).toEqual([]);
  expect(left).toEqual({ running: 0, waiting: 0, paused: 0, pendingRows: 0, kvBytesOfRequests: 0 });
  for (const what of ["streams", "whole answers", "left by the client", "refused: 429"]) {
    expect(counts[what], what).toBeGreaterThan(0);
  }
});
