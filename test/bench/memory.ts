import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { openCheckpoint } from "@fathom/gpu-service/checkpoint/open-checkpoint.ts";
import { ENGINE_ENV } from "@fathom/gpu-service/engine/process-env.ts";
import { benchModel } from "./model.ts";
import { median, table } from "./stats.ts";

const ROUNDS = 3;
const CHILD = fileURLToPath(new URL("./memory-child.ts", import.meta.url));

/** Serves in a process of its own with all exits, then with only the full depth, and compares resident memory. */
export async function benchMemory(options: { model?: string }): Promise<void> {
  const dir = await benchModel(options.model);
  const { manifest } = await openCheckpoint(dir);
  const full = [manifest.architecture.layers];
  const samples = { all: [] as number[], full: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    samples.all.push(await measure(dir, manifest.exits));
    samples.full.push(await measure(dir, full));
  }
  const [all, alone] = [median(samples.all), median(samples.full)];
  console.log(
    `${manifest.name}, ${manifest.quantization.layers}: resident memory after an answer at every exit, ${ROUNDS} rounds`,
  );
  console.log(
    table(
      ["serving", "MB", "ratio"],
      [
        [`all exits (${manifest.exits.join(", ")})`, mb(all), (all / alone).toFixed(3)],
        [`full depth (${full.join()})`, mb(alone), "1.000"],
      ],
    ),
  );
}

function mb(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

async function measure(dir: string, exits: readonly number[]): Promise<number> {
  const { stdout } = await promisify(execFile)(process.execPath, ["--expose-gc", CHILD, dir, exits.join(",")], {
    env: { ...process.env, ...ENGINE_ENV },
  });
  return Number(stdout.trim());
}
