import type { SamplingParams } from "./types.ts";

/** Index of the largest logit; the lowest index wins a tie. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  let bestLogit = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i] as number;
    if (logit > bestLogit) {
      best = i;
      bestLogit = logit;
    }
  }
  return best;
}

/**
 * Draws the token at position `index` of an answer. Temperature 0 is argmax; otherwise softmax(logits / temperature) cut to
 * its nucleus (Holtzman et al. 2020, section 3.1).
 *
 * The random number depends on the seed and the index alone, so an answer does not change with what else is running.
 */
export function sampleToken(logits: Float32Array, params: SamplingParams, index: number): number {
  if (params.temperature === 0) return argmax(logits);
  return drawFrom(distribution(logits, params), uniform(params.seed, index));
}

/** The probabilities that sampling draws from, float64 [vocab]: softmax(logits / temperature) within its nucleus, sum 1. */
export function distribution(logits: Float32Array, { temperature, topP }: SamplingParams): Float64Array {
  const probabilities = softmax(logits, temperature);
  if (topP >= 1) return probabilities;
  const kept = new Float64Array(probabilities.length);
  let mass = 0;
  const candidates = nucleus(probabilities, topP);
  for (const token of candidates) mass += probabilities[token] as number;
  for (const token of candidates) kept[token] = (probabilities[token] as number) / mass;
  return kept;
}

/** The token at which the cumulated probabilities pass `point`, 0 ≤ point < 1. */
export function drawFrom(probabilities: Float64Array, point: number): number {
  let rest = point;
  let last = 0;
  for (let token = 0; token < probabilities.length; token++) {
    const p = probabilities[token] as number;
    if (p === 0) continue;
    rest -= p;
    last = token;
    if (rest < 0) return token;
  }
  return last;
}

/** softmax(logits / temperature) in float64. */
export function softmax(logits: Float32Array, temperature: number): Float64Array {
  const max = logits[argmax(logits)] ?? 0;
  const probabilities = new Float64Array(logits.length);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) {
    const p = Math.exp(((logits[i] as number) - max) / temperature);
    probabilities[i] = p;
    sum += p;
  }
  for (let i = 0; i < probabilities.length; i++) probabilities[i] = (probabilities[i] as number) / sum;
  return probabilities;
}

/** The smallest set of most probable tokens whose mass reaches `topP`, most probable first. */
export function nucleus(probabilities: Float64Array, topP: number): number[] {
  // Tokens below this share cannot together hold the mass outside the nucleus, so they need no sorting.
  const floor = topP < 1 ? (1 - topP) / probabilities.length : 0;
  const candidates: number[] = [];
  for (let i = 0; i < probabilities.length; i++) {
    const p = probabilities[i] as number;
    if (p > floor) candidates.push(i);
  }
  if (topP >= 1) return candidates;
  candidates.sort((x, y) => (probabilities[y] as number) - (probabilities[x] as number) || x - y);
  let mass = 0;
  for (let i = 0; i < candidates.length; i++) {
    mass += probabilities[candidates[i] as number] as number;
    if (mass >= topP) return candidates.slice(0, i + 1);
  }
  return candidates;
}

/** A uniform number in [0, 1) from a counter: MurmurHash3's finaliser over seed and index, 53 bits. */
export function uniform(seed: number, index: number): number {
  const low = seed >>> 0;
  const high = Math.floor(seed / 2 ** 32) >>> 0;
  const a = mix(mix(low ^ 0x9e3779b9) ^ mix(high + 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35));
  const b = mix(a ^ Math.imul(index + 1, 0x27d4eb2f) ^ low);
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53;
}

function mix(value: number): number {
  let h = value >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
