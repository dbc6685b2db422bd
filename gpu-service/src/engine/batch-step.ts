import type { CostModel } from "./cost-model.ts";
import type { Executor } from "./executor.ts";
import type { HeadRow, Visit } from "./visit.ts";

/** Prompt chunks run beside decoding rows would hold each of them up in every kernel, so they run in calls of their own. */
const LARGE = 16;

/** A visit in one segment. */
interface Leg {
  visit: Visit;
  from: number;
  count: number;
  input: readonly number[] | Float32Array;
}

/** A visit that has come to an exit, and what it brings: float32 [count, H]. */
interface Arrival {
  visit: Visit;
  depth: number;
  hidden: Float32Array;
}

/**
 * Takes all visits through the segments, segment by segment, until each is over: rows that are decided at an exit drop off,
 * the others go on together. Rows that may go on ask the head at once; those that have come to their end wait for the others,
 * so that all share one reading of the head.
 */
export async function runVisits(executor: Executor, visits: readonly Visit[], cost: CostModel): Promise<void> {
  let active = [...visits];
  const arrived: Arrival[] = [];
  for (const [segment, { from, to }] of executor.segments.entries()) {
    if (active.length === 0) break;
    const legs = active.map((visit): Leg => {
      const { from: start, input } = visit.sequence.next(segment, visit.end);
      return { visit, from: start, count: visit.end - start, input };
    });
    const small = legs.filter(({ count }) => count < LARGE);
    const calls = [small, ...legs.filter(({ count }) => count >= LARGE).map((leg) => [leg])];
    const exits: Arrival[] = [];
    for (const call of calls)
      if (call.length > 0) exits.push(...(await runCall(executor, segment, call, to - from, cost)));
    arrived.push(...exits.filter(({ visit }) => visit.deepest === to));
    const over = await decide(
      executor,
      exits.filter(({ visit }) => visit.deepest > to),
      cost,
    );
    active = active.filter((visit) => visit.deepest > to && !over.has(visit));
  }
  for (const head of new Set(arrived.map(({ depth }) => executor.headOf(depth)))) {
    await decide(
      executor,
      arrived.filter(({ depth }) => executor.headOf(depth) === head),
      cost,
    );
  }
}

async function runCall(
  executor: Executor,
  segment: number,
  legs: readonly Leg[],
  layers: number,
  cost: CostModel,
): Promise<Arrival[]> {
  const depth = executor.segments[segment]?.to ?? 0;
  const size = executor.architecture.hidden_size;
  const rows = legs.map(({ visit, from, count }) => ({ id: visit.sequence.id, from, count }));
  const count = rows.reduce((sum, row) => sum + row.count, 0);
  const started = performance.now();
  const hidden = await executor.run(segment, rows, segment === 0 ? tokensOf(legs, count) : streamOf(legs, count, size));
  cost.observeLayers(count, layers, performance.now() - started);
  let at = 0;
  return legs.map(({ visit, count: own }) => {
    const part = hidden.subarray(at * size, (at + own) * size);
    at += own;
    visit.sequence.ran(segment, own, part);
    return { visit, depth, hidden: part };
  });
}

/** Shows the head the rows of the visits that ask, in one call: their exits share it. @returns the visits that are over */
async function decide(executor: Executor, arrivals: readonly Arrival[], cost: CostModel): Promise<Set<Visit>> {
  const size = executor.architecture.hidden_size;
  const asking = arrivals
    .map((arrival) => ({ ...arrival, rows: arrival.visit.rowsAt(arrival.depth) }))
    .filter(({ rows }) => rows > 0);
  const over = new Set<Visit>();
  const [first] = asking;
  if (!first) return over;
  const count = asking.reduce((sum, { rows }) => sum + rows, 0);
  const stacked = new Float32Array(count * size);
  let at = 0;
  for (const { hidden, rows } of asking) {
    stacked.set(hidden.subarray(hidden.length - rows * size), at * size);
    at += rows;
  }
  const sampled = asking.some(({ visit }) => visit.sequence.request.sampling.temperature > 0);
  const started = performance.now();
  const { tokens, confidence, logits } = await executor.head(first.depth, stacked, sampled);
  cost.observeHead(count, performance.now() - started);
  const vocab = executor.architecture.vocab_size;
  let row = 0;
  for (const { visit, depth, rows } of asking) {
    const own = visit.sequence.request.sampling.temperature > 0 ? logits : undefined;
    const heads: HeadRow[] = [];
    for (const end = row + rows; row < end; row++) {
      heads.push({
        token: Number(tokens[row]),
        confidence: confidence[row] ?? 0,
        logits: own?.subarray(row * vocab, (row + 1) * vocab),
      });
    }
    if (visit.decide(depth, heads)) over.add(visit);
  }
  return over;
}

function tokensOf(legs: readonly Leg[], count: number): BigInt64Array {
  const tokens = new BigInt64Array(count);
  let at = 0;
  for (const { input } of legs) for (const token of input) tokens[at++] = BigInt(token);
  return tokens;
}

function streamOf(legs: readonly Leg[], count: number, size: number): Float32Array {
  const [only] = legs;
  if (legs.length === 1 && only?.input instanceof Float32Array) return only.input;
  const stream = new Float32Array(count * size);
  let at = 0;
  for (const { input } of legs) {
    stream.set(input, at);
    at += input.length;
  }
  return stream;
}
