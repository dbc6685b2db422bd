/** The quarters of the depth, rounded up; fewer where the model has fewer than four layers. */
export function defaultExits(layers: number): number[] {
  return [...new Set([1, 2, 3, 4].map((quarter) => Math.ceil((layers * quarter) / 4)))];
}
