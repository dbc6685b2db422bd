/**
 * A stream of numbers in [0, 1) that the keys alone decide (a SplitMix-style hash of the keys seeds mulberry32): whoever knows
 * seed and step draws the same, so a resumed run needs no generator state.
 */
export function randomStream(...keys: readonly number[]): () => number {
  let state = 0x9e3779b9;
  for (const key of keys) {
    state = mix((state ^ key) >>> 0);
    state = mix((state + Math.floor(key / 2 ** 32) + 0x9e3779b9) >>> 0);
  }
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The items in random order (Fisher and Yates). */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}

function mix(value: number): number {
  let z = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return (z ^ (z >>> 16)) >>> 0;
}
