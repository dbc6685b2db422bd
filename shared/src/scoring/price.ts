/**
 * Layer-tokens of one answer: prompt tokens at the depth that prefilled them plus the layers used by each generated token.
 */
export function layerTokens(promptTokens: number, prefillDepth: number, layersUsed: number): number {
  return promptTokens * prefillDepth + layersUsed;
}

/**
 * Price of `tokens` layer-tokens in whole micro-USD, rounded up so that a sum of settled prices never falls below the
 * price of the sum. `price` is in nano-USD per layer-token (an integer, so that no float enters a budget).
 */
export function priceMicroUsd(tokens: number, price: number): number {
  if (!Number.isSafeInteger(tokens) || tokens < 0)
    throw new RangeError(`layer-tokens must be a whole number ≥ 0, not ${tokens}`);
  if (!Number.isSafeInteger(price) || price < 0)
    throw new RangeError(`price must be a whole number of nano-USD ≥ 0, not ${price}`);
  const nano = BigInt(tokens) * BigInt(price);
  return Number((nano + 999n) / 1000n);
}
