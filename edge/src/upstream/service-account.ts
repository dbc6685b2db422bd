import { FathomResponse } from "@fathom/shared";
import { z } from "zod";

/** The part of an answer, or of a stream's last chunk, that says what it used. */
export const ServiceAccount = z.object({
  usage: z.object({ prompt_tokens: z.int().min(0), completion_tokens: z.int().min(0) }).nullish(),
  fathom: FathomResponse,
});
export type ServiceAccount = z.infer<typeof ServiceAccount>;
