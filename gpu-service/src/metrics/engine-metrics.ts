import { Counter, Gauge, type Registry } from "prom-client";
import type { EngineStats } from "../engine/types.ts";

/** The engine's statistics under the name of its model. */
export interface EngineSnapshot {
  name: string;
  stats: EngineStats;
}

type Sample = readonly [labels: Record<string, string>, value: number];
type Read = (stats: EngineStats) => number | readonly Sample[];

interface Definition {
  name: string;
  help: string;
  read: Read;
  labels?: readonly string[];
}

const GAUGES: readonly Definition[] = [
  { name: "vllm:num_requests_running", help: "Requests that hold K/V.", read: (s) => s.running },
  { name: "vllm:num_requests_waiting", help: "Requests that wait for their turn.", read: (s) => s.waiting },
  {
    name: "vllm:kv_cache_usage_perc",
    help: "Share of the K/V budget that requests hold, 0 to 1. What only the prefix cache holds can be evicted: it is free.",
    read: (s) => (s.kvBudgetBytes > 0 ? heldByRequests(s) / s.kvBudgetBytes : 0),
  },
  { name: "fathom_requests_paused", help: "Running requests whose reader lags behind.", read: (s) => s.paused },
  {
    name: "fathom_pending_rows",
    help: "Tokens whose K/V above their exit is not computed yet.",
    read: (s) => s.pendingRows,
  },
  {
    name: "fathom_kv_bytes",
    help: "Bytes of K/V: of requests, and of what only the prefix cache holds.",
    labels: ["kind"],
    read: (s) => [
      [{ kind: "requests" }, heldByRequests(s)],
      [{ kind: "prefix_cache" }, s.prefixCacheBytes],
    ],
  },
  { name: "fathom_kv_budget_bytes", help: "Bytes of K/V that there may be.", read: (s) => s.kvBudgetBytes },
];

const COUNTERS: readonly Definition[] = [
  { name: "vllm:prompt_tokens_total", help: "Prompt tokens.", read: (s) => s.promptTokens },
  { name: "vllm:generation_tokens_total", help: "Generated tokens.", read: (s) => s.generatedTokens },
  {
    name: "vllm:prefix_cache_queries_total",
    help: "Prompt tokens looked up in the prefix cache.",
    read: (s) => s.prefixCacheQueries,
  },
  {
    name: "vllm:prefix_cache_hits_total",
    help: "Prompt tokens found in the prefix cache.",
    read: (s) => s.prefixCacheHits,
  },
  {
    name: "vllm:num_preemptions_total",
    help: "Times that a request lost its K/V and was prefilled again.",
    read: (s) => s.preemptions,
  },
  {
    name: "vllm:spec_decode_num_draft_tokens_total",
    help: "Tokens proposed at a draft's exit.",
    read: (s) => s.draftProposed,
  },
  {
    name: "vllm:spec_decode_num_accepted_tokens_total",
    help: "Proposed tokens that the target depth accepted.",
    read: (s) => s.draftAccepted,
  },
  { name: "fathom_engine_steps_total", help: "Steps of the engine.", read: (s) => s.steps },
  {
    name: "fathom_tokens_total",
    help: "Generated tokens by the depth that decided them and why: fixed, confident, target, verified.",
    labels: ["depth", "reason"],
    read: (s) => s.exits.map(({ depth, reason, tokens }) => [{ depth: String(depth), reason }, tokens]),
  },
];

function heldByRequests({ kvBytes, prefixCacheBytes }: EngineStats): number {
  return Math.max(0, kvBytes - prefixCacheBytes);
}

/** Puts the engine's own gauges and counters into a registry. They say what the last snapshot says, and nothing without one. */
export class EngineMetrics {
  #snapshot: EngineSnapshot | undefined;

  constructor(registers: Registry[]) {
    const samples = (read: Read): Sample[] => {
      if (!this.#snapshot) return [];
      const value = read(this.#snapshot.stats);
      const model = { model_name: this.#snapshot.name };
      const list: readonly Sample[] = typeof value === "number" ? [[{}, value]] : value;
      return list.map(([labels, number]) => [{ ...model, ...labels }, number]);
    };
    for (const { name, help, read, labels = [] } of GAUGES) {
      const labelNames = ["model_name", ...labels];
      new Gauge({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          for (const [labels, value] of samples(read)) this.set(labels, value);
        },
      });
    }
    for (const { name, help, read, labels = [] } of COUNTERS) {
      const labelNames = ["model_name", ...labels];
      new Counter({
        name,
        help,
        labelNames,
        registers,
        collect() {
          // The engine counts; here its count is shown.
          this.reset();
          for (const [labels, value] of samples(read)) this.inc(labels, value);
        },
      });
    }
  }

  /** What the next scrape shows: one moment of the engine, so that figures fit together. */
  snapshot(snapshot: EngineSnapshot | undefined): void {
    this.#snapshot = snapshot;
  }
}
