/** Added to masked scores: large enough to vanish in the softmax, small enough not to overflow. */
export const MASKED = -1e30;

/** float32 [group · length, length]: query row r, of position r mod length, sees the positions up to its own. */
export function causalMask(group: number, length: number): Float32Array {
  const mask = new Float32Array(group * length * length);
  for (let row = 0; row < group * length; row++) {
    mask.fill(MASKED, row * length + (row % length) + 1, (row + 1) * length);
  }
  return mask;
}
