import { z } from "zod";

const share = z.number().min(0).max(1);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().min(0);

/** What the calibration measured at one exit, on the tokens that leave the model there. */
export const CalibratedExit = z.object({
  depth: z.int().min(1),
  /** The last exit takes every token that comes to it and has no threshold; another exit without one is always passed. */
  threshold: share.optional(),
  /** Tokens decided here. */
  tokens: count,
  /** Share of them that equal full depth's token; null where there are none. */
  agreement: share.nullable(),
});
export type CalibratedExit = z.infer<typeof CalibratedExit>;

/**
 * The evidence behind a manifest's `thresholds`, and the guarantee in words: with probability `confidence` over the draw of
 * the calibration prompts, the expected agreement with full depth (mean over prompts like these of the share of a prompt's
 * tokens that equal full depth's, greedily decoded at the same prefix) is at least `agreement`.
 */
export const Calibration = z
  .object({
    version: z.literal(1),
    /** The procedure, its test and how the candidate thresholds were made, such as `learn-then-test, betting, fitted`. */
    method: z.string().min(1),
    created: z.iso.datetime(),
    /** Agreement that was asked for; certified or not. */
    agreement: z.number().gt(0).lt(1),
    confidence: z.number().gt(0).lt(1),
    /** False: nothing could be certified, every token goes to full depth. */
    certified: z.boolean(),
    /** p-value of "agreement is below the asked-for level" for the chosen thresholds; null when nothing is certified. */
    p_value: share.nullable(),
    /** Hash over the hashes of the weight files that were measured: thresholds mean nothing for others. */
    weights_sha256: sha256,
    /** Exits that could get a threshold, and the full depth. */
    exits: z.array(CalibratedExit).min(2),
    /** Of the certifying prompts under the chosen thresholds. */
    measured: z.object({
      /** Mean over prompts of the share of agreeing tokens: what the guarantee speaks of. */
      agreement: share,
      /** 95% bootstrap interval of it over prompts; a description, not the guarantee. */
      agreement_interval: z.tuple([share, share]),
      /** Share of agreeing tokens, every token counting the same. */
      token_agreement: share,
      /** Layers used per token, and their share of the full depth. */
      mean_layers: z.number().min(0),
      layers_share: share,
    }),
    /** `fit` prompts shaped the candidates, `certify` ones tested them; `left_out` were too long or repeated. */
    prompts: z.object({ fit: count, certify: count, left_out: count }),
    tokens: z.object({ fit: count, certify: count }),
    /** Longest continuation, tokens: the guarantee speaks of the first so many tokens of an answer. */
    max_tokens: z.int().min(1),
    /** How an instruction became a prompt; absent for a model without a tokenizer. */
    template: z.enum(["alpaca", "chat"]).optional(),
    data: z.array(z.object({ file: z.string().min(1), sha256, prompts: count })).min(1),
    seed: count,
  })
  .refine(({ certified, exits }) => certified || exits.every(({ threshold }) => threshold === undefined), {
    error: "without a certificate no exit has a threshold",
    path: ["exits"],
  });
export type Calibration = z.infer<typeof Calibration>;
