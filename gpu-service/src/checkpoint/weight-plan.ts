import type { Manifest, WeightFormat } from "@fathom/shared";
import { DEFAULT_BLOCK_SIZE } from "./stored-bytes.ts";

/**
 * The formats that `--weights` stands for. int4 keeps the embedding and the head at int8: they decide every token at every
 * exit, and an int4 table costs more agreement there than it saves bytes.
 */
export function weightPlan(weights: WeightFormat): Manifest["quantization"] {
  switch (weights) {
    case "fp32":
    case "fp16":
      return { layers: weights, embedding: weights, head: weights };
    case "int8":
      return { layers: weights, embedding: "int8", head: "int8", block_size: DEFAULT_BLOCK_SIZE };
    case "int4":
      return { layers: weights, embedding: "int8", head: "int8", block_size: DEFAULT_BLOCK_SIZE, offsets: true };
  }
}
