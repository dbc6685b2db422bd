/** Repeatable pseudo-random numbers in [0, 1). */
export function randomNumbers(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Normally distributed values. */
export function gaussian(length: number, seed: number, deviation = 1): Float32Array {
  const random = randomNumbers(seed);
  return Float32Array.from(
    { length },
    () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()) * deviation,
  );
}
