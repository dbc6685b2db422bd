import { openCheckpoint } from "@fathom/gpu-service/checkpoint/open-checkpoint.ts";
import { Command } from "commander";
import { benchModel } from "../bench/model.ts";
import { soak } from "./soak.ts";

const program = new Command("soak")
  .description("random arrivals, aborts, slow readers and malformed requests at overload, against the real model")
  .option("--model <dir>", "nested checkpoint (default: SmolLM2-135M int4, fetched once)")
  .option("--minutes <n>", "how long", Number, 10)
  .option("--clients <n>", "clients at the same time", Number, 24)
  .action(async ({ model, minutes, clients }: { model?: string; minutes: number; clients: number }) => {
    const dir = await benchModel(model);
    const { manifest } = await openCheckpoint(dir);
    let seconds = 0;
    const { counts, violations, left, memory } = await soak({
      dir,
      model: manifest.name,
      exits: manifest.exits,
      seconds: minutes * 60,
      clients,
      onProgress: (soFar) => {
        if (++seconds % 60 === 0) console.log(`${seconds / 60} min: ${JSON.stringify(soFar)}`);
      },
    });
    console.log(
      JSON.stringify({ counts, left, memory_mb: memory.map(Math.round), violations: violations.slice(0, 20) }, null, 2),
    );
    const leaks = Object.values(left).some((value) => value !== 0);
    // Fragments of the allocator come and go; a leak of one row per hundred requests would be far above a tenth.
    const grew = memory[2] > 1.1 * memory[1];
    process.exitCode = violations.length > 0 || leaks || grew ? 1 : 0;
    console.log(
      process.exitCode === 0
        ? "nothing leaked"
        : `FAILED: ${violations.length} violations${grew ? ", memory grew" : ""}`,
    );
  });
await program.parseAsync();
