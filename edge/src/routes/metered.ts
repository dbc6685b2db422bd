import type { FathomResponse } from "@fathom/shared";
import type { StreamEnd } from "../upstream/relay-stream.ts";
import type { ServiceAccount } from "../upstream/service-account.ts";
import type { Metered, UsageStatus } from "../usage/usage-row.ts";
import type { Admitted } from "./admit.ts";

/** What a whole answer used, by the service's account. */
export function meteredWhole({ servedBy, prompt }: Admitted, { usage, fathom }: ServiceAccount): Metered {
  const { layers, cost } = fathom;
  return {
    service: servedBy,
    exit: fathom.exit,
    prompt_tokens: usage?.prompt_tokens ?? promptTokens(fathom) ?? prompt.about,
    completion_tokens: usage?.completion_tokens ?? Object.values(layers.histogram).reduce((a, b) => a + b, 0),
    layer_tokens: cost.layer_tokens,
    status: "complete",
  };
}

/** What a streamed answer used: by the service's account, or as metered if it was cut. Then the prompt is an estimate. */
export function meteredStream(admitted: Admitted, ending: StreamEnd): Metered {
  if (ending.how === "complete") return meteredWhole(admitted, ending.account);
  const { prompt, offer } = admitted;
  return {
    ...meteredNothing(admitted, ending.how),
    prompt_tokens: prompt.about,
    completion_tokens: ending.tokensDelivered,
    layer_tokens: prompt.about * offer.depth + ending.layersDelivered,
  };
}

/** What an answer used of which nothing was delivered. */
export function meteredNothing({ servedBy, request }: Admitted, status: UsageStatus): Metered {
  const exit = request.fathom?.exit ?? "fixed";
  return { service: servedBy, exit, prompt_tokens: 0, completion_tokens: 0, layer_tokens: 0, status };
}

/** A stream says `usage` only when asked. Prompt tokens count at the depth that prefilled them. */
function promptTokens({ depth, layers, cost }: FathomResponse): number | undefined {
  const tokens = (cost.layer_tokens - layers.total) / depth;
  return Number.isSafeInteger(tokens) && tokens >= 0 ? tokens : undefined;
}
