import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pullModel } from "@fathom/gpu-service/checkpoint/pull-model.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Where benchmarks and `npm start` keep what they fetch. */
export const CACHE = join(ROOT, ".fathom");

/** The checkpoint to measure: the given one, or SmolLM2-135M as int4, fetched on first use. */
export async function benchModel(dir: string | undefined): Promise<string> {
  if (dir !== undefined) return dir;
  const path = join(CACHE, "models", "smollm2-135m");
  if (!existsSync(join(path, "manifest.json"))) await pullModel("smollm2-135m", path, { weights: "int4" });
  return path;
}

/** Token ids of the six reference prompts, rendered with the model's chat template. */
export function referencePrompts(): number[][] {
  const reference: { cases: { token_ids: number[] }[] } = JSON.parse(
    readFileSync(join(ROOT, "test/fixtures/smollm2-reference.json"), "utf8"),
  );
  return reference.cases.map((c) => c.token_ids);
}
