import { type Architecture, tensorShapes } from "@fathom/shared";
import type { Checkpoint } from "../checkpoint/open-checkpoint.ts";
import { readTensor } from "../checkpoint/read-tensor.ts";

/** Trainable tensors by their checkpoint names, float32, in the order of `tensorShapes`. */
export type Parameters = Map<string, Float32Array>;

/** Gradients by parameter name; a parameter that nothing flowed to is absent. */
export type Gradients = Map<string, Float32Array>;

/** Reads every tensor of a checkpoint as float32. */
export async function loadParameters(checkpoint: Checkpoint): Promise<Parameters> {
  const parameters: Parameters = new Map();
  for (const name of tensorShapes(checkpoint.manifest.architecture).keys()) {
    parameters.set(name, await readTensor(checkpoint, name));
  }
  return parameters;
}

/** Name of the tensor that the LM head multiplies with. */
export function headName(a: Architecture): "embed" | "head" {
  return a.tied ? "embed" : "head";
}

/** A parameter by name. @throws Error naming the one that is missing. */
export function parameter(parameters: ReadonlyMap<string, Float32Array>, name: string): Float32Array {
  const values = parameters.get(name);
  if (!values) throw new Error(`there is no parameter '${name}'`);
  return values;
}

/** Adds a gradient to what is there; the first one is kept as it is, without a copy. */
export function accumulate(gradients: Gradients, name: string, gradient: Float32Array): void {
  const sum = gradients.get(name);
  if (!sum) {
    gradients.set(name, gradient);
    return;
  }
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (gradient[i] as number);
}

/** Global L2 norm over all gradients, accumulated in float64 (`torch.nn.utils.clip_grad_norm_`). */
export function gradientNorm(gradients: Gradients): number {
  let sum = 0;
  for (const gradient of gradients.values()) {
    for (let i = 0; i < gradient.length; i++) sum += (gradient[i] as number) ** 2;
  }
  return Math.sqrt(sum);
}
