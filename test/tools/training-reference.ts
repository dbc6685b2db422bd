import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { trainingReference } from "@fathom/gpu-service/train/reference.ts";

// Prints as JSON what we compute for a folder with a Hugging Face LLaMA and a reference.json, in that file's field names.
const [source] = process.argv.slice(2);
if (source === undefined) {
  console.error(
    "usage: node test/tools/training-reference.ts DIR   (DIR holds config.json, model.safetensors, reference.json)",
  );
  process.exit(2);
}
const scratch = await mkdtemp(join(tmpdir(), "fathom-reference-"));
try {
  const { reference } = await trainingReference(source, scratch);
  console.log(JSON.stringify(reference, null, 1));
} finally {
  await rm(scratch, { recursive: true });
}
