import { randomStream } from "../../random/random-stream.ts";
import type { RecordedAnswer } from "../exit-simulation.ts";

/** Three exits and full depth. */
export const DEPTHS = [2, 4, 6, 8];

/**
 * Answers of many prompts with known statistics: the mean over all of them is the true risk for draws from them with
 * replacement. Deeper exits know more; a tenth of the prompts are deceptive, their exits confident and often wrong, so that the
 * tokens of a prompt are far from independent.
 * @param length tokens of an answer, at most
 */
export function population(prompts: number, length: number, seed: number): RecordedAnswer[] {
  const random = randomStream(seed);
  return Array.from({ length: prompts }, () => {
    const deceptive = random() < 0.1;
    const tokens = 1 + Math.floor(random() * length);
    const difficulty = Float64Array.from({ length: tokens }, () => 6 * random());
    const exits = DEPTHS.slice(0, -1).map((_, exit) => {
      const logits = difficulty.map((hard) => 1.5 + 1.5 * exit - hard + 2 * random());
      const confidence = Float32Array.from(logits, (logit) => 1 / (1 + Math.exp(-2 * logit)));
      const differs = Uint8Array.from(confidence, (p) =>
        random() < (deceptive ? 0.3 : 0.7) * (1 - p) + (deceptive ? 0.1 : 0) ? 1 : 0,
      );
      return { confidence, differs };
    });
    return { tokens, confidence: exits.map((e) => e.confidence), differs: exits.map((e) => e.differs) };
  });
}

/** Draws answers with replacement. */
export function draw(from: readonly RecordedAnswer[], count: number, random: () => number): RecordedAnswer[] {
  return Array.from({ length: count }, () => from[Math.floor(random() * from.length)] as RecordedAnswer);
}
