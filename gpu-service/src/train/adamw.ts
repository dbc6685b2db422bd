import type { Gradients, Parameters } from "./parameters.ts";

export interface AdamWOptions {
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
}

/** First and second moments by parameter name, and the number of steps taken. */
export interface AdamWState {
  step: number;
  first: Map<string, Float32Array>;
  second: Map<string, Float32Array>;
}

export function newAdamWState(): AdamWState {
  return { step: 0, first: new Map(), second: new Map() };
}

/**
 * One step of AdamW with the semantics of `torch.optim.AdamW`: decoupled decay of every parameter that has a gradient, then
 * the bias-corrected update (Loshchilov and Hutter 2019, algorithm 2). Parameters and moments change in place, float32.
 * @param gradientScale multiplies every gradient first: clipping and accumulation in one pass
 */
export function adamWStep(
  parameters: Parameters,
  gradients: Gradients,
  state: AdamWState,
  learningRate: number,
  gradientScale: number,
  { beta1, beta2, epsilon, weightDecay }: AdamWOptions,
): void {
  state.step++;
  const correction1 = 1 - beta1 ** state.step;
  const correction2 = Math.sqrt(1 - beta2 ** state.step);
  const decay = 1 - learningRate * weightDecay;
  const stepSize = learningRate / correction1;
  for (const [name, gradient] of gradients) {
    const values = parameters.get(name);
    if (!values) throw new Error(`there is a gradient but no parameter '${name}'`);
    const m = moment(state.first, name, values.length);
    const v = moment(state.second, name, values.length);
    for (let i = 0; i < values.length; i++) {
      const g = (gradient[i] as number) * gradientScale;
      const first = beta1 * (m[i] as number) + (1 - beta1) * g;
      const second = beta2 * (v[i] as number) + (1 - beta2) * g * g;
      m[i] = first;
      v[i] = second;
      values[i] = (values[i] as number) * decay - (stepSize * first) / (Math.sqrt(second) / correction2 + epsilon);
    }
  }
}

/** The factor that takes gradients of norm `norm` to at most `maxNorm`, as `torch.nn.utils.clip_grad_norm_` does. */
export function clipScale(norm: number, maxNorm: number): number {
  return Math.min(1, maxNorm / (norm + 1e-6));
}

function moment(moments: Map<string, Float32Array>, name: string, length: number): Float32Array {
  const known = moments.get(name);
  if (known) return known;
  const fresh = new Float32Array(length);
  moments.set(name, fresh);
  return fresh;
}
