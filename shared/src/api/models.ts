import { z } from "zod";
import { DepthProfile } from "../model/depth-profile.ts";
import { Depth, ExitPolicyName } from "./fathom.ts";

/** One exit as `/v1/models` describes it: what it costs to hold, and what share of the full model runs. */
export const ExitDescription = z.object({
  depth: z.int().min(1),
  /** Parameters that run for a token at this depth: embedding, the first `depth` layers, norm and head (tied counts once). */
  parameters: z.int().min(0),
  /** Bytes of those parameters as stored. */
  bytes: z.int().min(0),
});
export type ExitDescription = z.infer<typeof ExitDescription>;

/** What a virtual model's name stands for: a checkpoint, and the parts of the depth dial that it sets. */
export const VirtualModel = z.object({
  model: z.string(),
  depth: Depth.optional(),
  max_depth: Depth.optional(),
  exit: ExitPolicyName.optional(),
});
export type VirtualModel = z.infer<typeof VirtualModel>;

export const ModelDescription = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  fathom: z
    .object({
      layers: z.int().min(1),
      context_length: z.int().min(1),
      exits: z.array(ExitDescription).min(1),
      bytes: z.int().min(0),
      parameters: z.int().min(0),
      /** What the exits are worth and how long they take, where an evaluation has measured them. */
      profile: DepthProfile.optional(),
      /** Only of names that stand for a checkpoint and a wish. */
      virtual: VirtualModel.optional(),
    })
    .optional(),
});
export type ModelDescription = z.infer<typeof ModelDescription>;

export const ModelList = z.object({ object: z.literal("list"), data: z.array(ModelDescription) });
export type ModelList = z.infer<typeof ModelList>;
