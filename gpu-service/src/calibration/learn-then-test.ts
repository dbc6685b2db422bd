import { CalibrationError } from "./calibration-error.ts";
import { type RecordedAnswer, type Simulation, simulateExits, type Thresholds } from "./exit-simulation.ts";
import { fewestPrompts, RISK_TESTS, type RiskTestName } from "./risk-bounds.ts";
import { fittedPath, sharedPath } from "./threshold-path.ts";

export interface Guarantee {
  /** Agreement with full depth to certify, 0…1 exclusive. */
  agreement: number;
  /** Probability with which the certificate must hold over the draw of the prompts, 0…1 exclusive. */
  confidence: number;
  test: RiskTestName;
}

/** How prompts are used; decided by their number alone, so that the guarantee is untouched. */
export interface Plan {
  /** `fitted`: thresholds of their own, shaped on prompts that certify nothing. `shared`: one threshold, all prompts certify. */
  family: "fitted" | "shared";
  fit: number;
  certify: number;
}

/** One in so many prompts shapes the thresholds: certifying is what takes many. */
const FIT_EVERY = 3;
/** Certifying prompts beyond the fewest possible that are worth a fit. */
const COMFORT = 1.5;

/**
 * Splits prompts: a third shapes thresholds per exit and the rest certifies, if those are half as many again as the fewest
 * that could certify anything; else all of them certify one threshold for all exits.
 * @throws CalibrationError when even a flawless result on all prompts would not suffice.
 */
export function planPrompts(prompts: number, { agreement, confidence, test }: Guarantee): Plan {
  const fewest = fewestPrompts(RISK_TESTS[test], 1 - agreement, 1 - confidence);
  const fit = fitCount(prompts);
  if (prompts - fit >= COMFORT * fewest) return { family: "fitted", fit, certify: prompts - fit };
  if (prompts >= fewest) return { family: "shared", fit: 0, certify: prompts };
  let comfortable = fewest;
  while (comfortable - fitCount(comfortable) < COMFORT * fewest) comfortable++;
  throw new CalibrationError(
    `${prompts} prompts cannot certify an agreement of ${agreement} with confidence ${confidence}: that takes at least ` +
      `${fewest}, and ${comfortable} for thresholds of each exit's own. ` +
      "Give more data, or a lower --agreement or --confidence",
  );
}

function fitCount(prompts: number): number {
  return Math.floor(prompts / FIT_EVERY);
}

export interface Certificate {
  plan: Plan;
  /** Empty: nothing could be certified, no token leaves early. */
  thresholds: Thresholds;
  certified: boolean;
  /** Of the chosen thresholds, or of the first candidate when that failed. */
  pValue: number;
  /** Candidates that passed, of all. */
  passed: number;
  candidates: number;
  /** Outcome of the chosen thresholds on the certifying prompts. */
  measured: Simulation;
  /** Nothing certified: prompts that the most conservative candidate would need if further ones are like these. */
  promptsNeeded?: number;
}

/**
 * Chooses thresholds by Learn-then-Test with fixed-sequence testing: candidates are ordered from conservative to aggressive
 * without a look at the certifying answers, each is tested at level δ = 1 − confidence, and testing stops at the first that
 * does not pass. The probability that any candidate that passed has a true disagreement above 1 − agreement is at most δ; the
 * last one that passed uses the fewest layers. Prompts are the independent unit: a loss is one prompt's mean disagreement.
 * Angelopoulos et al. 2021, arXiv 2110.01052, section 2.2 (fixed-sequence testing); CALM, arXiv 2207.07061, section 4.
 * @param answers in an order that does not depend on them, as many as the plan says; the first `fit` ones shape the thresholds
 * @param depths ascending, full depth last
 */
export function learnThenTest(
  answers: readonly RecordedAnswer[],
  depths: readonly number[],
  guarantee: Guarantee,
): Certificate {
  const plan = planPrompts(answers.length, guarantee);
  const certifying = answers.slice(plan.fit);
  const path = plan.family === "fitted" ? fittedPath(answers.slice(0, plan.fit), depths) : sharedPath(depths);
  const [risk, delta] = [1 - guarantee.agreement, 1 - guarantee.confidence];
  const test = RISK_TESTS[guarantee.test];

  let best: Pick<Certificate, "thresholds" | "pValue" | "measured"> | undefined;
  let passed = 0;
  for (const thresholds of path) {
    const measured = simulateExits(certifying, depths, thresholds);
    const pValue = test(measured.losses, risk);
    if (pValue > delta) {
      if (best) break;
      return {
        plan,
        thresholds: {},
        certified: false,
        pValue,
        passed,
        candidates: path.length,
        measured: simulateExits(certifying, depths, {}),
        ...promptsNeeded(measured.losses, plan, guarantee),
      };
    }
    best = { thresholds, pValue, measured };
    passed++;
  }
  // Without candidates no exit is worth anything to the fit: full depth agrees with itself, but that is no certificate.
  best ??= { thresholds: {}, pValue: 1, measured: simulateExits(certifying, depths, {}) };
  return { plan, certified: passed > 0, passed, candidates: path.length, ...best };
}

/** Most that an estimate extrapolates. */
const FARTHEST = 200;

function promptsNeeded(losses: Float64Array, { fit, certify }: Plan, guarantee: Guarantee): { promptsNeeded?: number } {
  const [risk, delta] = [1 - guarantee.agreement, 1 - guarantee.confidence];
  for (let n = certify; n <= certify * FARTHEST; n = Math.ceil(n * 1.1)) {
    const repeated = Float64Array.from({ length: n }, (_, i) => losses[i % certify] ?? 1);
    if (RISK_TESTS[guarantee.test](repeated, risk) <= delta) {
      return { promptsNeeded: Math.ceil((n * (fit + certify)) / certify) };
    }
  }
  return {};
}
