/** How far the load must fall before a depth that it took is given back. */
export const LOAD_HYSTERESIS = 0.1;

/**
 * The load that the policy reckons with, from the one that it last reckoned with: it follows a rising load at once and a falling
 * one at a distance of `width`, so that a load that wavers by less moves no depth twice (a backlash, as in control engineering).
 * Pure; a higher load never gives a lower result.
 */
export function steadyLoad(previous: number, load: number, width = LOAD_HYSTERESIS): number {
  return Math.max(load, Math.min(previous, load + width));
}
