import { readFile } from "node:fs/promises";
import { z } from "zod";
import { EXECUTION_PROVIDERS } from "../engine/types.ts";
import { METHOD_NAMES } from "./objectives/methods.ts";
import { TrainError } from "./train-error.ts";

/** For what a run cannot do without. */
const missing = { error: ({ input }: { input: unknown }) => (input === undefined ? "is missing" : undefined) };
const positive = z.number().positive();
const count = z.int().min(1);

/** Everything that decides a run; the names are those of the command's options in camel case. */
export const TrainConfig = z.strictObject({
  /** Nested checkpoint to start from. */
  base: z.string(missing).min(1),
  /** File of records. */
  data: z.string(missing).min(1),
  method: z.enum(METHOD_NAMES, missing),
  /** Ascending depths that end with the full one; default: the base's. */
  exits: z.array(count).min(1).optional(),
  /** Leave empty records out rather than refuse the file. */
  skipEmpty: z.boolean().default(false),
  template: z.enum(["alpaca", "chat"]).default("alpaca"),
  learningRate: positive.default(2e-5),
  schedule: z.enum(["constant", "cosine"]).default("cosine"),
  /** Steps over which the learning rate rises. */
  warmup: z.int().min(0).default(0),
  /** Examples per forward pass. */
  batch: count.default(8),
  /** Forward passes per step. */
  accumulation: count.default(1),
  epochs: positive.default(1),
  /** Ends the run before its epochs do, or after. */
  maxSteps: count.optional(),
  /** Stops after this much time; the checkpoint is written then. */
  maxMinutes: positive.optional(),
  /** Longest example, tokens; longer ones are cut. */
  maxLength: z.int().min(2).default(512),
  /** Fewest response tokens of a record that trains; shorter ones take time and teach little. */
  minResponse: count.default(1),
  seed: z.int().min(0).default(42),
  weightDecay: z.number().min(0).default(0),
  /** Largest gradient norm. */
  clip: positive.default(1),
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.999),
  epsilon: positive.default(1e-8),
  /** LITE and SortedNet: weights of the exits in their order. */
  exitWeights: z.array(positive).optional(),
  /** SortedNet: exits per step. */
  exitsPerStep: count.default(1),
  /** SortedNet: full depth is one of them. */
  alwaysFull: z.boolean().default(false),
  /** Share of the loss that is KL to the teacher. */
  distill: z.number().min(0).max(1).default(0),
  /** Who teaches: full depth of the model itself (`self`), of the base (`base`), or of the checkpoint in a folder. */
  teacher: z.string().min(1).default("self"),
  /** Rank of low-rank adapters: only those train, and are merged at the end. Default: the matrices train themselves. */
  loraRank: z.int().min(1).max(1024).optional(),
  /** Matrices that get adapters, such as attn.o,mlp.down,layers:20-29. Default: all of the layers that are not frozen. */
  adapt: z.string().min(1).optional(),
  /** File of adapters to start from, as `--export-adapters` writes it; default: fresh ones. */
  initAdapters: z.string().min(1).optional(),
  /** What stays as it is: embeddings, head, norm, layers:0-5. */
  freeze: z.string().default(""),
  /** Steps between evaluations on held-out records. */
  evalEvery: count.default(500),
  /** Held-out records that are evaluated. */
  evalRecords: z.int().min(0).default(48),
  /** Minutes between saved states. */
  saveEvery: positive.default(5),
  threads: count.default(2),
  /** Where the graphs run. */
  provider: z.enum(EXECUTION_PROVIDERS).default("cpu"),
  /** Idle threads wait actively: faster alone, wasteful beside other work. */
  spinning: z.boolean().default(true),
});
export type TrainConfig = z.infer<typeof TrainConfig>;

/** What a resumed run may change: how long and how, never what it computes per step. */
export const RESUMABLE = [
  "maxSteps",
  "maxMinutes",
  "epochs",
  "evalEvery",
  "evalRecords",
  "saveEvery",
  "threads",
] as const;

/** Checks settings from any source. @throws TrainError naming the setting. */
export function parseConfig(settings: object, where: string): TrainConfig {
  const result = TrainConfig.safeParse(settings);
  if (!result.success) {
    const issue = result.error.issues[0];
    const field = issue && issue.path.length > 0 ? `'${issue.path.join(".")}': ` : "";
    throw new TrainError(`${where}: ${field}${issue?.message ?? "is malformed"}`);
  }
  const { method, exitWeights, exits, distill } = result.data;
  if (exitWeights && method !== "lite" && method !== "sortednet") {
    throw new TrainError(`${where}: 'exitWeights' is for the methods lite and sortednet`);
  }
  if (exitWeights && exits && exitWeights.length !== exits.length) {
    throw new TrainError(`${where}: ${exitWeights.length} 'exitWeights' for ${exits.length} exits`);
  }
  if (method === "ict" && (distill > 0 || result.data.freeze !== "")) {
    throw new TrainError(
      `${where}: with ict the whole model is frozen and the labels teach: no 'distill', no 'freeze'`,
    );
  }
  if (method === "ict" && result.data.loraRank !== undefined) {
    throw new TrainError(`${where}: 'loraRank' adapts the layers, which ict leaves as they are`);
  }
  if (result.data.adapt !== undefined && result.data.loraRank === undefined) {
    throw new TrainError(`${where}: 'adapt' needs 'loraRank'`);
  }
  if (result.data.initAdapters !== undefined && result.data.loraRank === undefined) {
    throw new TrainError(`${where}: 'initAdapters' needs 'loraRank', the rank of the adapters in the file`);
  }
  if (distill === 1 && result.data.teacher === "self" && method === "sft") {
    throw new TrainError(`${where}: full depth cannot be its own only teacher; use --teacher base`);
  }
  return result.data;
}

/** Reads settings from a JSON file. @throws TrainError that names it. */
export async function readSettings(path: string): Promise<object> {
  let json: unknown;
  try {
    json = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new TrainError(`${path}: cannot be used (${error instanceof Error ? error.message : error})`);
  }
  if (typeof json === "object" && json !== null && !Array.isArray(json)) return json;
  throw new TrainError(`${path}: is not a JSON object`);
}
