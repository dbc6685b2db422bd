/**
 * The order in which to try services: each time the better of two that are drawn at random comes next. Who always took the
 * least loaded one would send everybody to the same service until its load is known (power of two choices: Mitzenmacher 2001).
 * @param loadOf the lower the better
 * @param random from 0 to below 1
 */
export function chooseOrder<T>(candidates: readonly T[], loadOf: (candidate: T) => number, random: () => number): T[] {
  const left = [...candidates];
  const order: T[] = [];
  while (left.length > 0) {
    const one = draw(left.length, random);
    // Another than the first: two draws of the same one are no choice.
    const other = left.length === 1 ? one : (one + 1 + draw(left.length - 1, random)) % left.length;
    const [first, second] = [left[one], left[other]];
    if (first === undefined || second === undefined) break;
    order.push(...left.splice(loadOf(second) < loadOf(first) ? other : one, 1));
  }
  return order;
}

function draw(count: number, random: () => number): number {
  return Math.floor(random() * count);
}
