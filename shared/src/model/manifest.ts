import { z } from "zod";
import { Calibration } from "./calibration.ts";
import { DepthProfile } from "./depth-profile.ts";
import { ExitSet, fullDepth } from "./exit-set.ts";

/** How a weight matrix is stored. `int4`/`int8` are block-wise over the input dimension, in the MatMulNBits layout. */
export const WeightFormat = z.enum(["fp32", "fp16", "int8", "int4"]);
export type WeightFormat = z.infer<typeof WeightFormat>;

/** A path inside the checkpoint folder: forward slashes, no way out of the folder. */
const RelativePath = z
  .string()
  .min(1)
  .max(255)
  .regex(/^(?!\/)(?!.*(^|\/)\.\.?(\/|$))[A-Za-z0-9._/-]+$/, { error: "must be a plain relative path" });

/** A run of bytes in one weight file. */
export const ByteRange = z.object({
  file: RelativePath,
  offset: z.int().min(0),
  bytes: z.int().min(1),
});
export type ByteRange = z.infer<typeof ByteRange>;

/**
 * One stored tensor.
 * - fp32/fp16: `data` holds row-major little-endian values of `shape`.
 * - int4/int8: `shape` is [N, K] (output × input features) and a row has B = ceil(K/block) blocks, the last one padded;
 *   `data` is uint8 [N, B, block·bits/8] with the low nibble first, `scales` is float16 [N, B], `zero_points` (int4 only,
 *   when asymmetric) is uint8 [N, ceil(B/2)], low nibble first.
 *   value = (q − zero_point) · scale; without `zero_points` the zero point is 8 (int4) or 128 (int8).
 */
export const StoredTensor = z.object({
  format: WeightFormat,
  shape: z.array(z.int().min(1)).min(1).max(2),
  data: ByteRange,
  scales: ByteRange.optional(),
  zero_points: ByteRange.optional(),
});
export type StoredTensor = z.infer<typeof StoredTensor>;

const Rope = z.object({
  theta: z.number().positive(),
  /** Llama-3 frequency scaling; absent means plain RoPE. */
  llama3: z
    .object({
      factor: z.number().positive(),
      low_freq_factor: z.number().positive(),
      high_freq_factor: z.number().positive(),
      original_max_position_embeddings: z.int().min(1),
    })
    .optional(),
});

export const Architecture = z
  .object({
    type: z.literal("llama"),
    hidden_size: z.int().min(1),
    intermediate_size: z.int().min(1),
    layers: z.int().min(1).max(1024),
    heads: z.int().min(1),
    kv_heads: z.int().min(1),
    head_dim: z.int().min(2),
    vocab_size: z.int().min(2),
    rms_norm_eps: z.number().positive(),
    context_length: z.int().min(1),
    rope: Rope,
    /** The head is the embedding matrix. */
    tied: z.boolean(),
  })
  .refine((a) => a.heads % a.kv_heads === 0, { error: "heads must be a multiple of kv_heads", path: ["kv_heads"] })
  .refine((a) => a.head_dim % 2 === 0, { error: "head_dim must be even", path: ["head_dim"] });
export type Architecture = z.infer<typeof Architecture>;

/** Where the weights come from. */
export const Provenance = z.object({
  source: z.string(),
  created: z.string(),
  license: z.string().optional(),
  notes: z.string().optional(),
});

export const MANIFEST_FORMAT = "fathom-nested";

/** `manifest.json` of a nested checkpoint. */
export const Manifest = z
  .object({
    format: z.literal(MANIFEST_FORMAT),
    version: z.literal(1),
    name: z
      .string()
      .min(1)
      .max(128)
      .regex(/^[A-Za-z0-9._-]+$/),
    architecture: Architecture,
    exits: ExitSet,
    /** Exits with a norm and head of their own (intermediate classifier tuning); the others share the final ones. */
    exit_heads: z.array(z.int().min(1)).optional(),
    quantization: z.object({
      layers: WeightFormat,
      embedding: WeightFormat,
      head: WeightFormat,
      block_size: z.int().min(16).optional(),
      /** int4 matrices, all of them or those named, carry an offset per block in extra columns; see `offsetColumns`. */
      offsets: z.union([z.boolean(), z.array(z.string())]).optional(),
    }),
    tokenizer: z.object({
      bos_token_id: z.int().min(0).nullable(),
      eos_token_ids: z.array(z.int().min(0)),
    }),
    tensors: z.record(z.string(), StoredTensor),
    files: z.array(z.object({ path: RelativePath, bytes: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) })),
    /** Confidence exit: depth → top probability from which a token stops there; a depth without one is passed. */
    thresholds: z.record(z.string(), z.number().min(0).max(1)).optional(),
    /** Where the thresholds come from and what they guarantee. */
    calibration: Calibration.optional(),
    profile: DepthProfile.optional(),
    provenance: Provenance,
  })
  .refine((m) => fullDepth(m.exits) === m.architecture.layers, {
    error: "the last exit must be the full depth",
    path: ["exits"],
  })
  .refine((m) => (m.exit_heads ?? []).every((depth, i, all) => m.exits.includes(depth) && depth > (all[i - 1] ?? 0)), {
    error: "heads of their own belong to exits, ascending and without repeats",
    path: ["exit_heads"],
  });
export type Manifest = z.infer<typeof Manifest>;

/** Matrices of one decoder layer, by the suffix of their tensor name. Projections that read the same input are packed. */
export const LAYER_MATRICES = ["attn.qkv", "attn.o", "mlp.gate_up", "mlp.down"] as const;
export type LayerMatrix = (typeof LAYER_MATRICES)[number];

/** Values that share a scale when the manifest does not say. */
export const DEFAULT_BLOCK_SIZE = 32;

/** How the blocks of one int8 or int4 matrix lie. */
export interface BlockLayout {
  /** Values that share a scale; default DEFAULT_BLOCK_SIZE. */
  block_size?: number | undefined;
  /** Blocks of int4 carry an offset. */
  offsets?: boolean | undefined;
}

/** The layout that a checkpoint gives the tensor `name`. */
export function blockLayout({ block_size, offsets }: Manifest["quantization"], name: string): BlockLayout {
  return { block_size, offsets: Array.isArray(offsets) ? offsets.includes(name) : offsets };
}

/**
 * Extra columns of an int4 [N, K] matrix: with `offsets`, column K + j holds the offset of the row's block j, so
 * that value = (q − zero_point) · scale + offset (an integer zero point alone cannot hold what GGUF's Q4_1 or any real-valued
 * minimum says). Multiplying the extended matrix with the input followed by its block sums adds the offsets' share. The
 * columns are encoded in blocks of their own behind the row's; a K that blocks do not divide has none.
 */
export function offsetColumns(layout: BlockLayout, format: WeightFormat, k: number): number {
  const block = layout.block_size ?? DEFAULT_BLOCK_SIZE;
  return format === "int4" && layout.offsets === true && k % block === 0 ? k / block : 0;
}

/** [N, K] of a layer matrix. `attn.qkv` stacks q, k, v along N; `mlp.gate_up` stacks gate, up. */
export function layerMatrixShape(a: Architecture, matrix: LayerMatrix): [number, number] {
  const q = a.heads * a.head_dim;
  const kv = a.kv_heads * a.head_dim;
  switch (matrix) {
    case "attn.qkv":
      return [q + 2 * kv, a.hidden_size];
    case "attn.o":
      return [a.hidden_size, q];
    case "mlp.gate_up":
      return [2 * a.intermediate_size, a.hidden_size];
    case "mlp.down":
      return [a.hidden_size, a.intermediate_size];
  }
}

/**
 * Names and shapes of every tensor that a checkpoint of this architecture holds, in file order: `embed` [V, H], then per
 * layer `layers.{i}.attn_norm` [H], the four matrices, `layers.{i}.mlp_norm` [H], then `norm` [H] and, untied, `head` [V, H],
 * then for each exit with a head of its own `exits.{depth}.norm` [H] and `exits.{depth}.head` [V, H].
 */
export function tensorShapes(a: Architecture, exitHeads: readonly number[] = []): Map<string, number[]> {
  const shapes = new Map<string, number[]>([["embed", [a.vocab_size, a.hidden_size]]]);
  for (let i = 0; i < a.layers; i++) {
    shapes.set(`layers.${i}.attn_norm`, [a.hidden_size]);
    shapes.set(`layers.${i}.attn.qkv`, layerMatrixShape(a, "attn.qkv"));
    shapes.set(`layers.${i}.attn.o`, layerMatrixShape(a, "attn.o"));
    shapes.set(`layers.${i}.mlp_norm`, [a.hidden_size]);
    shapes.set(`layers.${i}.mlp.gate_up`, layerMatrixShape(a, "mlp.gate_up"));
    shapes.set(`layers.${i}.mlp.down`, layerMatrixShape(a, "mlp.down"));
  }
  shapes.set("norm", [a.hidden_size]);
  if (!a.tied) shapes.set("head", [a.vocab_size, a.hidden_size]);
  for (const depth of exitHeads) {
    const { norm, head } = headTensors(a, depth, exitHeads);
    shapes.set(norm, [a.hidden_size]);
    shapes.set(head, [a.vocab_size, a.hidden_size]);
  }
  return shapes;
}

/** Names of the norm and the head that an exit goes through. */
export function headTensors(
  a: Architecture,
  depth: number,
  exitHeads: readonly number[] = [],
): { norm: string; head: string } {
  if (exitHeads.includes(depth)) return { norm: `exits.${depth}.norm`, head: `exits.${depth}.head` };
  return { norm: "norm", head: a.tied ? "embed" : "head" };
}

/** Parameters that run for one token at `depth`: embedding, the first `depth` layers, norm, head (a tied one counts once). */
export function parametersAt(a: Architecture, depth: number, exitHeads: readonly number[] = []): number {
  let count = 0;
  for (const [name, shape] of tensorShapes(a, exitHeads)) {
    if (runsAt(name, a, depth, exitHeads)) count += shape.reduce((x, y) => x * y, 1);
  }
  return count;
}

/** Stored bytes of those parameters. */
export function bytesAt(manifest: Manifest, depth: number): number {
  let bytes = 0;
  for (const [name, tensor] of Object.entries(manifest.tensors)) {
    if (runsAt(name, manifest.architecture, depth, manifest.exit_heads ?? [])) {
      bytes += tensor.data.bytes + (tensor.scales?.bytes ?? 0) + (tensor.zero_points?.bytes ?? 0);
    }
  }
  return bytes;
}

function runsAt(name: string, a: Architecture, depth: number, exitHeads: readonly number[]): boolean {
  const layer = /^layers\.(\d+)\./.exec(name)?.[1];
  if (layer !== undefined) return Number(layer) < depth;
  const { norm, head } = headTensors(a, depth, exitHeads);
  return name === "embed" || name === norm || name === head;
}
