import type { ErrorCode } from "@fathom/shared";
import { Counter, collectDefaultMetrics, Histogram, Registry } from "prom-client";
import type { Engine, EngineEvent, EngineRequest } from "../engine/types.ts";
import type { TextEnd } from "../text/generate-text.ts";
import type { ServedModel } from "../text/served-model.ts";
import { oneTwoFive, REQUEST_SECONDS, TIME_PER_TOKEN_SECONDS, TIME_TO_FIRST_TOKEN_SECONDS } from "./buckets.ts";
import { EngineMetrics } from "./engine-metrics.ts";

/** What a complete answer took. */
export type CompleteAnswer = Pick<TextEnd, "finishReason" | "usage" | "fathom">;

/** How answers end, in vLLM's words where it has one; `timeout` is ours. */
type FinishedReason = CompleteAnswer["finishReason"] | "abort" | "timeout" | "error";

/** How an answer ended that failed with a code. The other codes refuse a request before the engine has taken it. */
const REASON_OF_FAILURE: Partial<Record<ErrorCode, FinishedReason>> = {
  cancelled: "abort",
  draining: "abort",
  timeout: "timeout",
  internal_error: "error",
};

const LABELS = ["model_name"] as const;

export interface ServiceMetricsOptions {
  /** Memory, CPU, event loop and garbage collection of the process. */
  process?: boolean;
}

/**
 * The service's Prometheus metrics. What vLLM measures has vLLM's name, label and buckets, so that its dashboards and
 * autoscalers work; exits, layers and pending rows, which vLLM does not know, begin with `fathom_`.
 *
 * vLLM's names are those of `vllm/v1/metrics/loggers.py`; its Python client adds `_total` to the names of counters, ours
 * does not.
 */
export class ServiceMetrics {
  readonly #registry = new Registry();
  readonly #model: () => ServedModel | undefined;
  readonly #engine: EngineMetrics;
  readonly #finished: Counter<"model_name" | "finished_reason">;
  readonly #refused: Counter<"code">;
  readonly #layerTokens: Counter<"model_name">;
  readonly #firstToken: Histogram<"model_name">;
  readonly #interToken: Histogram<"model_name">;
  /** Observed when an answer is complete; values in seconds or tokens. */
  readonly #perAnswer: readonly [Histogram<"model_name">, (answer: CompleteAnswer) => number | undefined][];

  constructor(model: () => ServedModel | undefined, options: ServiceMetricsOptions = {}) {
    const registers = [this.#registry];
    this.#model = model;
    this.#engine = new EngineMetrics(registers);
    this.#finished = new Counter({
      name: "vllm:request_success_total",
      help: "Answers that ended, by how: stop, length, abort (client gone or service draining), timeout, error.",
      labelNames: [...LABELS, "finished_reason"],
      registers,
    });
    this.#refused = new Counter({
      name: "fathom_requests_refused_total",
      help: "Requests that got an error instead of an answer, by its code.",
      labelNames: ["code"],
      registers,
    });
    this.#layerTokens = new Counter({
      name: "fathom_layer_tokens_total",
      help: "Layer-tokens of ended answers: prompt tokens x the depth that prefilled them + layers of generated tokens.",
      labelNames: LABELS,
      registers,
    });
    const histogram = (name: string, help: string, buckets: number[]): Histogram<"model_name"> =>
      new Histogram({ name, help, buckets, labelNames: LABELS, registers });
    this.#firstToken = histogram(
      "vllm:time_to_first_token_seconds",
      "Time from a request to its first token.",
      TIME_TO_FIRST_TOKEN_SECONDS,
    );
    this.#interToken = histogram(
      "vllm:inter_token_latency_seconds",
      "Time between one token of an answer and the next; tokens of one draft come together.",
      TIME_PER_TOKEN_SECONDS,
    );
    this.#perAnswer = [
      [
        histogram(
          "vllm:request_time_per_output_token_seconds",
          "Mean time per token after the first, of each answer.",
          TIME_PER_TOKEN_SECONDS,
        ),
        ({ usage, fathom }) =>
          usage.completion_tokens > 1 ? fathom.timing.decode_ms / 1000 / (usage.completion_tokens - 1) : undefined,
      ],
      [
        histogram("vllm:e2e_request_latency_seconds", "Time from a request to the end of its answer.", REQUEST_SECONDS),
        ({ fathom }) => fathom.timing.total_ms / 1000,
      ],
      [
        histogram("vllm:request_queue_time_seconds", "Time that requests waited for their turn.", REQUEST_SECONDS),
        ({ fathom }) => fathom.timing.queue_ms / 1000,
      ],
      [
        histogram("vllm:request_prefill_time_seconds", "Time that prefilling took.", REQUEST_SECONDS),
        ({ fathom }) => fathom.timing.prefill_ms / 1000,
      ],
      [
        histogram("vllm:request_decode_time_seconds", "Time from the first token to the last.", REQUEST_SECONDS),
        ({ fathom }) => fathom.timing.decode_ms / 1000,
      ],
      [
        histogram("vllm:request_prompt_tokens", "Prompt tokens of each answer.", oneTwoFive(100_000)),
        ({ usage }) => usage.prompt_tokens,
      ],
      [
        histogram("vllm:request_generation_tokens", "Generated tokens of each answer.", oneTwoFive(100_000)),
        ({ usage }) => usage.completion_tokens,
      ],
    ];
    if (options.process) collectDefaultMetrics({ register: this.#registry });
  }

  /** Content type of `text`. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics in Prometheus' text format. Those of the engine appear once the model is loaded. */
  text(): Promise<string> {
    const model = this.#model();
    this.#engine.snapshot(model && { name: model.manifest.name, stats: model.engine.stats() });
    return this.#registry.metrics();
  }

  /** The engine, with its tokens counted as they come. */
  meter({ manifest, engine }: Pick<ServedModel, "manifest" | "engine">): Pick<Engine, "generate"> {
    const labels = { model_name: manifest.name };
    return { generate: (request, signal) => this.#metered(engine.generate(request, signal), request, labels) };
  }

  /** A complete answer. */
  completed(answer: CompleteAnswer): void {
    const labels = this.#labels();
    this.#finished.inc({ ...labels, finished_reason: answer.finishReason });
    for (const [histogram, read] of this.#perAnswer) {
      const value = read(answer);
      if (value !== undefined) histogram.observe(labels, value);
    }
  }

  /** An answer that failed with this code, before or after its first token. */
  failed(code: ErrorCode): void {
    const reason = REASON_OF_FAILURE[code];
    if (reason) this.#finished.inc({ ...this.#labels(), finished_reason: reason });
  }

  /** A request that was answered with an error. */
  refused(code: ErrorCode): void {
    this.#refused.inc({ code });
  }

  #labels(): { model_name: string } {
    return { model_name: this.#model()?.manifest.name ?? "" };
  }

  async *#metered(
    events: AsyncIterable<EngineEvent>,
    { prompt }: EngineRequest,
    labels: { model_name: string },
  ): AsyncGenerator<EngineEvent, void, void> {
    let last = performance.now();
    let tokens = 0;
    let layers = 0;
    for await (const event of events) {
      if (event.type === "token") {
        const now = performance.now();
        (tokens === 0 ? this.#firstToken : this.#interToken).observe(labels, (now - last) / 1000);
        last = now;
        tokens++;
        layers += event.layers;
      } else {
        this.#layerTokens.inc(labels, event.account.promptDepth * prompt.length + layers);
      }
      yield event;
    }
  }
}
