import type { RecordedAnswer, Thresholds } from "./exit-simulation.ts";
import { simulateExits } from "./exit-simulation.ts";

const LEVELS = 96;
const LOWEST = 0.05;
const HIGHEST = 0.99999;
/** Prices of a disagreement to try, in full-depth passes per token: from never worth it to hardly a matter. */
const DEAREST = 1e4;
const CHEAPEST = 0.1;
const PRICES = 160;
const MAX_SWEEPS = 12;
/** Steps from one optimum to the next. */
const STEPS = 5;

/**
 * Thresholds that may be chosen, ascending: evenly spaced in log-odds, as confidences crowd near 1. Rounded, so that the
 * manifest's decimals are the very numbers that were tested.
 */
export const THRESHOLD_GRID: readonly number[] = Array.from({ length: LEVELS }, (_, i) => {
  const [low, high] = [logOdds(LOWEST), logOdds(HIGHEST)];
  const level = 1 / (1 + Math.exp(-(low + ((high - low) * i) / (LEVELS - 1))));
  return Math.round(level * 1e6) / 1e6;
});

/** The same threshold at every early exit, from the highest to the lowest: a path that no data shaped. */
export function sharedPath(depths: readonly number[]): Thresholds[] {
  const early = depths.slice(0, -1);
  return THRESHOLD_GRID.toReversed().map((level) => Object.fromEntries(early.map((depth) => [depth, level])));
}

/**
 * Threshold vectors from conservative to aggressive, each exit with its own: for every price μ of a disagreement those that
 * minimise (mean layers / full depth) + μ · (mean disagreement of a prompt) on the answers, by coordinate descent, which is
 * exact in each threshold; and steps in between, from "never" to the first one too, as such optima leave gaps. Vectors that
 * save no more layers than one that disagrees less are left out.
 * @param depths ascending, full depth last
 */
export function fittedPath(answers: readonly RecordedAnswer[], depths: readonly number[]): Thresholds[] {
  const table = tabulate(answers, depths);
  const found = new Map<string, Thresholds>();
  let choice = new Uint16Array(depths.length - 1).fill(LEVELS);
  for (let i = 0; i < PRICES; i++) {
    const price = DEAREST * (CHEAPEST / DEAREST) ** (i / (PRICES - 1));
    const next = descend(table, choice, price);
    for (let step = 1; step <= STEPS; step++) {
      const between = choice.map((index, exit) => Math.round(index + (((next[exit] ?? index) - index) * step) / STEPS));
      if (between.some((index) => index < LEVELS)) found.set(between.join(), toThresholds(between, depths));
    }
    choice = next;
  }
  return paretoFront([...found.values()], answers, depths);
}

interface Table {
  /** Relative depth of each early exit. */
  cost: number[];
  /** Per early exit and token: grid levels that the confidence reaches, 0…LEVELS. It stops at grid index g if level > g. */
  level: Uint16Array[];
  differs: Uint8Array[];
  /** Weight of a token's disagreement: every prompt counts the same. */
  weight: Float64Array;
  tokens: number;
}

function tabulate(answers: readonly RecordedAnswer[], depths: readonly number[]): Table {
  const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0);
  const full = depths.at(-1) ?? 1;
  const early = depths.slice(0, -1);
  const weight = new Float64Array(tokens);
  const level = early.map(() => new Uint16Array(tokens));
  const differs = early.map(() => new Uint8Array(tokens));
  let at = 0;
  for (const answer of answers) {
    weight.fill(1 / (answers.length * answer.tokens), at, at + answer.tokens);
    for (const exit of early.keys()) {
      differs[exit]?.set(answer.differs[exit] ?? [], at);
      level[exit]?.set(Uint16Array.from(answer.confidence[exit] ?? [], levelsReached), at);
    }
    at += answer.tokens;
  }
  return { cost: early.map((depth) => depth / full), level, differs, weight, tokens };
}

/** Sweeps over the exits, deepest first, until no threshold changes. */
function descend(table: Table, start: Uint16Array<ArrayBuffer>, price: number): Uint16Array<ArrayBuffer> {
  let choice = start;
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    const next = sweepExits(table, choice, price);
    if (next.every((index, exit) => index === choice[exit])) return next;
    choice = next;
  }
  return choice;
}

function sweepExits(table: Table, start: Uint16Array<ArrayBuffer>, price: number): Uint16Array<ArrayBuffer> {
  const { cost, level, differs, weight, tokens } = table;
  const choice = start.slice();
  const exits = choice.length;
  const first = new Uint16Array(tokens).fill(exits);
  for (let exit = exits - 1; exit >= 0; exit--) {
    const levels = level[exit] as Uint16Array;
    const limit = choice[exit] as number;
    for (let t = 0; t < tokens; t++) if ((levels[t] as number) > limit) first[t] = exit;
  }
  // What becomes of a token that passes the exit under consideration: its cost and whether it differs.
  const laterCost = new Float64Array(tokens).fill(1);
  const laterDiffers = new Uint8Array(tokens);
  const change = new Float64Array(LEVELS + 1);
  for (let exit = exits - 1; exit >= 0; exit--) {
    const levels = level[exit] as Uint16Array;
    const wrong = differs[exit] as Uint8Array;
    const own = cost[exit] as number;
    change.fill(0);
    for (let t = 0; t < tokens; t++) {
      if ((first[t] as number) < exit) continue;
      const saved = ((laterCost[t] as number) - own) / tokens;
      const risk = (weight[t] as number) * ((wrong[t] as number) - (laterDiffers[t] as number));
      change[levels[t] as number] = (change[levels[t] as number] as number) - saved + price * risk;
    }
    let best = LEVELS;
    let bestChange = 0;
    let running = 0;
    for (let index = LEVELS - 1; index >= 0; index--) {
      running += change[index + 1] as number;
      // A tie goes to the higher threshold.
      if (running < bestChange - 1e-15) [best, bestChange] = [index, running];
    }
    choice[exit] = best;
    for (let t = 0; t < tokens; t++) {
      if ((levels[t] as number) <= best) continue;
      laterCost[t] = own;
      laterDiffers[t] = wrong[t] as number;
    }
  }
  return choice;
}

function paretoFront(
  candidates: readonly Thresholds[],
  answers: readonly RecordedAnswer[],
  depths: readonly number[],
): Thresholds[] {
  const measured = candidates.map((thresholds) => {
    const { losses, layers } = simulateExits(answers, depths, thresholds);
    return { thresholds, layers, risk: losses.reduce((sum, loss) => sum + loss, 0) };
  });
  // Of those that disagree alike, the careful ones come first.
  measured.sort((x, y) => x.risk - y.risk || y.layers - x.layers);
  let fewest = Number.POSITIVE_INFINITY;
  const front: Thresholds[] = [];
  for (const { thresholds, layers } of measured) {
    if (layers >= fewest) continue;
    fewest = layers;
    front.push(thresholds);
  }
  return front;
}

function toThresholds(choice: Uint16Array, depths: readonly number[]): Thresholds {
  const entries = Array.from(choice, (index, exit) => [depths[exit], THRESHOLD_GRID[index]] as const);
  return Object.fromEntries(entries.filter(([, level]) => level !== undefined));
}

/** How many grid levels lie at or below the confidence. */
function levelsReached(confidence: number): number {
  let low = 0;
  let high = LEVELS;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((THRESHOLD_GRID[middle] as number) <= confidence) low = middle + 1;
    else high = middle;
  }
  return low;
}

function logOdds(p: number): number {
  return Math.log(p / (1 - p));
}
