import { shuffled } from "../random/random-stream.ts";

/** One kind of request and its share of all, in (0, 1]. */
export interface MixPart<T> {
  value: T;
  share: number;
}

/** A mix that makes no sense; the message says which part. */
export class MixError extends Error {
  override readonly name = "MixError";
}

/**
 * Reads `12:0.5,30:1.5`: values with weights, which need not add up to 1. A value without a weight has weight 1.
 * @param parse makes a value of its text, undefined if it is none
 * @throws MixError when a part is malformed or given twice.
 */
export function parseMix<T>(text: string, parse: (text: string) => T | undefined): MixPart<T>[] {
  const parts = text.split(",").map((part) => {
    const [name = "", weight = "1", ...rest] = part.trim().split(":");
    const value = parse(name);
    if (value === undefined) throw new MixError(`'${name}' is not one of the possible values`);
    const number = /^(\d+\.?\d*|\.\d+)$/.test(weight) && rest.length === 0 ? Number(weight) : 0;
    if (!(number > 0 && number < Number.POSITIVE_INFINITY))
      throw new MixError(`'${part.trim()}' has no positive weight`);
    return { value, number };
  });
  const total = parts.reduce((sum, { number }) => sum + number, 0);
  if (new Set(parts.map(({ value }) => value)).size < parts.length) throw new MixError("a value stands there twice");
  return parts.map(({ value, number }) => ({ value, share: number / total }));
}

/**
 * Gives each of `count` requests a value, so that every value has its share to within one request (largest remainder), in
 * random order: a short run then does not measure the luck of the draw.
 */
export function assignMix<T>(mix: readonly MixPart<T>[], count: number, random: () => number): T[] {
  const quotas = mix.map(({ value, share }) => ({
    value,
    whole: Math.floor(share * count),
    rest: (share * count) % 1,
  }));
  let missing = count - quotas.reduce((sum, { whole }) => sum + whole, 0);
  for (const quota of quotas.toSorted((x, y) => y.rest - x.rest)) {
    if (missing <= 0) break;
    quota.whole += 1;
    missing -= 1;
  }
  return shuffled(
    quotas.flatMap(({ value, whole }) => Array.from({ length: whole }, () => value)),
    random,
  );
}
