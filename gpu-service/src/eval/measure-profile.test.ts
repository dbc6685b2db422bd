import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { loadEngine } from "../engine/load-engine.ts";
import { importTinyLlama, tinyReference } from "../engine/testing/tiny-llama.ts";
import { measureProfile } from "./measure-profile.ts";

const root = temporaryFolder();
const [dir, data] = [join(root, "tiny"), join(root, "records.jsonl")];
const { exits } = tinyReference("tied");
// Records 0, 50 and 100 are held out.
const records = Array.from({ length: 120 }, (_, i) => ({
  prompt_tokens: [5 + (i % 50), 9, 12],
  completion_tokens: [20 + i, 21, 22 + (i % 7)],
}));

beforeAll(async () => {
  await importTinyLlama("tied", dir);
  await writeFile(data, records.map((record) => JSON.stringify(record)).join("\n"));
});

test("a profile holds what the exits say of the held-out responses, and is stored in the manifest", async () => {
  const options = { data, template: "chat" as const, records: 2, threads: 1 };
  const profile = await measureProfile(dir, options);
  expect((await openCheckpoint(dir)).manifest.profile).toEqual(profile);
  expect(profile.exits.map(({ depth }) => depth)).toEqual(exits);
  expect(profile.exits.at(-1)?.agreement).toBe(1);

  // The same from whole logits, target by target.
  const engine = await loadEngine(dir, { threads: 1 });
  const losses = exits.map(() => 0);
  let targets = 0;
  for (const { prompt_tokens: prompt, completion_tokens: completion } of [records[0], records[50]].filter(
    (r) => r !== undefined,
  )) {
    for (const [i, label] of completion.entries()) {
      const logits = await engine.probe([...prompt, ...completion.slice(0, i)], exits);
      for (const [e, exit] of logits.entries()) {
        const sum = exit.logits.reduce((total, logit) => total + Math.exp(logit), 0);
        losses[e] = (losses[e] ?? 0) + Math.log(sum) - (exit.logits[label] ?? 0);
      }
      targets++;
    }
  }
  await engine.close();
  for (const [e, loss] of losses.entries()) expect(profile.exits[e]?.loss).toBeCloseTo(loss / targets, 4);

  expect((await measureProfile(dir, options)).version).toBe(profile.version + 1);
});
