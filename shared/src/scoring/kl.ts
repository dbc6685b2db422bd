/** log Σ exp(x), shifted by the maximum so that it neither overflows nor loses the tail. Accumulates in float64. */
export function logSumExp(logits: ArrayLike<number>): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) max = Math.max(max, logits[i] ?? max);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] ?? max) - max);
  return max + Math.log(sum);
}

/**
 * KL(p ‖ q) in nats between the softmax distributions of two logit vectors of the same length.
 * @throws RangeError when the lengths differ.
 */
export function klDivergence(pLogits: ArrayLike<number>, qLogits: ArrayLike<number>): number {
  if (pLogits.length !== qLogits.length) {
    throw new RangeError(`logit vectors differ in length: ${pLogits.length} and ${qLogits.length}`);
  }
  const pNorm = logSumExp(pLogits);
  const qNorm = logSumExp(qLogits);
  let kl = 0;
  for (let i = 0; i < pLogits.length; i++) {
    const logP = (pLogits[i] ?? 0) - pNorm;
    kl += Math.exp(logP) * (logP - ((qLogits[i] ?? 0) - qNorm));
  }
  return Math.max(0, kl);
}
