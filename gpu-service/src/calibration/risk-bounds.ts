/**
 * A test of "the mean of the losses is at least `risk`", the losses being independent draws from [0, 1]: a small p-value says
 * that the mean is below `risk`. Valid for every number of losses: P(p ≤ δ) ≤ δ when the mean is not below.
 */
export type RiskTest = (losses: ArrayLike<number>, risk: number) => number;

export const RISK_TESTS = {
  betting: bettingPValue,
  "hoeffding-bentkus": hoeffdingBentkusPValue,
} as const satisfies Record<string, RiskTest>;
export type RiskTestName = keyof typeof RISK_TESTS;

/**
 * Hoeffding and Bentkus combined: the smaller of exp(−n·h₁(min(R̂, α), α)) and e·P(Bin(n, α) ≤ ⌈n·R̂⌉), with h₁ the binary
 * relative entropy. Knows the losses by their mean only.
 * Bates et al. 2021, arXiv 2101.02703, section 3.1.3; Angelopoulos et al. 2021, arXiv 2110.01052, section 2.1.
 */
export function hoeffdingBentkusPValue(losses: ArrayLike<number>, risk: number): number {
  const n = losses.length;
  if (n === 0) return 1;
  const mean = sum(losses) / n;
  const hoeffding = Math.exp(-n * binaryRelativeEntropy(Math.min(mean, risk), risk));
  const bentkus = Math.exp(1 + logBinomialTail(Math.ceil(n * mean), n, risk));
  return Math.min(1, hoeffding, bentkus);
}

/** Largest bet, as a share of the one that a single loss of 1 would ruin: higher wins faster, and loses more to that loss. */
const BOLDNESS = 0.9;
/** Weight of the first guess of mean and variance, in losses. */
const PRIOR_WEIGHT = 10;

/**
 * Testing by betting: a gambler stakes a part λ of the capital on the next loss being below `risk`, K ← K·(1 + λ·(risk − loss)).
 * If the mean is not below, the capital is a non-negative supermartingale whatever earlier losses decide the stakes, and
 * exceeds 1/δ with probability δ at most (Ville), so p = 1 / max K. The stake is the approximate growth-optimal one,
 * (risk − μ̂)/(σ̂² + (risk − μ̂)²), from what was seen before. Losses that vary little, as shares over many tokens do, need far
 * fewer prompts than their mean alone would.
 * Waudby-Smith and Ramdas 2020, arXiv 2010.09686, section 5 and appendix B.3 (aGRAPA), with a first guess (mean risk/2,
 * standard deviation risk) that suits small risks. The order of the losses matters; it must not depend on them.
 */
export function bettingPValue(losses: ArrayLike<number>, risk: number): number {
  const boldest = BOLDNESS / (1 - risk);
  let weight = PRIOR_WEIGHT;
  let mean = risk / 2;
  let squares = PRIOR_WEIGHT * risk ** 2;
  let capital = 0;
  let highest = 0;
  for (let i = 0; i < losses.length; i++) {
    const loss = losses[i] ?? 1;
    const edge = risk - mean;
    const stake = Math.min(boldest, Math.max(0, edge / (squares / weight + edge ** 2)));
    capital += Math.log1p(stake * (risk - loss));
    highest = Math.max(highest, capital);
    // Welford's update of mean and squared deviations.
    weight++;
    const deviation = loss - mean;
    mean += deviation / weight;
    squares += deviation * (loss - mean);
  }
  return Math.exp(-highest);
}

/** Fewest prompts with which the test can reach `delta` at all, were there no loss in any. */
export function fewestPrompts(test: RiskTest, risk: number, delta: number): number {
  const reaches = (n: number) => test(new Float64Array(n), risk) <= delta;
  let high = 1;
  while (!reaches(high)) high *= 2;
  let low = Math.floor(high / 2);
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (reaches(middle)) high = middle;
    else low = middle;
  }
  return high;
}

/**
 * ln P(X ≤ k) for X ~ Binomial(n, p), 0 < p < 1: the terms are added in log space, so that neither (1 − p)^n nor the sum
 * vanishes. Time grows with k.
 */
export function logBinomialTail(k: number, n: number, p: number): number {
  if (k < 0) return Number.NEGATIVE_INFINITY;
  if (k >= n) return 0;
  const logOdds = Math.log(p) - Math.log1p(-p);
  let term = n * Math.log1p(-p);
  let total = term;
  for (let i = 0; i < k; i++) {
    term += Math.log((n - i) / (i + 1)) + logOdds;
    const high = Math.max(total, term);
    total = high + Math.log1p(Math.exp(Math.min(total, term) - high));
  }
  return Math.min(0, total);
}

/** h₁(a, b) = a·ln(a/b) + (1 − a)·ln((1 − a)/(1 − b)), with 0·ln 0 = 0. */
function binaryRelativeEntropy(a: number, b: number): number {
  const part = (x: number, y: number) => (x === 0 ? 0 : x * Math.log(x / y));
  return part(a, b) + part(1 - a, 1 - b);
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] ?? 0;
  return total;
}
