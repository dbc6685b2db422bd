import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { servicesFor } from "../fleet/choose-service.ts";
import { type Candidate, countStarted, readyServices } from "../fleet/pool-view.ts";
import { setRateHeaders } from "../http/rate-headers.ts";
import { readJson } from "../http/read-json.ts";
import type { RequestEnd } from "../http/request-end.ts";
import { Account } from "../ledger/account.ts";
import type { KeyState } from "../ledger/kept-answers.ts";
import type { Lease } from "../ledger/lease.ts";
import type { Offer } from "../ledger/offer.ts";
import { keyConflict, refusalError } from "../ledger/refusal-error.ts";
import { type AnswerLimit, answerLimit, clippedLimit } from "../policy/answer-limit.ts";
import { depthOffers } from "../policy/depth-policy.ts";
import { type PromptSize, priceOffers } from "../policy/worst-case.ts";
import { settingsOf } from "../settings.ts";
import type { Endpoint, GenerationRequest, MaxTokensField } from "./endpoint.ts";
import { idempotencyOf } from "./idempotency.ts";

/** How much longer a hold lives than its request may take. */
const LEASE_GRACE_MS = 30_000;

/** A request that may run: its depth is decided and what it can cost is held. */
export interface Admitted {
  request: GenerationRequest;
  path: string;
  maxTokensField: MaxTokensField;
  /** Services that run the model, in the order in which to try them. */
  candidates: readonly [Candidate, ...Candidate[]];
  prompt: PromptSize;
  limit: AnswerLimit;
  offer: Offer;
  lease: Lease;
  /** Base URL of the service that answers, once it does. */
  servedBy: string;
  /** Whether the answer is to be kept under the request's idempotency key. */
  keepAnswer: boolean;
}

/** A request that was answered before under the same idempotency key. */
export interface Answered {
  answered: KeyState & { key: "answered" };
}

/**
 * Reads a request, decides its depth from plan, load, budget and wish, and reserves its worst case; or finds its answer.
 * @throws ApiError for a request that cannot be served, a pool that is away, or a refusal by the ledger.
 */
export async function admit<T extends GenerationRequest>(
  c: Context<AppEnv>,
  endpoint: Endpoint<T>,
  end: RequestEnd,
): Promise<Admitted | Answered> {
  const { log, timing, requestId, customer } = c.var;
  const { plan, planName, tenant } = customer;
  const request = await readJson(c, endpoint.schema);
  log.add({ model: request.model, stream: request.stream === true });

  const account = new Account(c.env.LEDGER, tenant, plan.ledger_shards ?? 1);
  const idempotent = await idempotencyOf(c, request);
  if (idempotent) {
    const state = await timing.measure("ledger", () => account.findAnswer(idempotent));
    if (state.key === "answered") return { answered: state };
    if (state.key !== "new") throw keyConflict(state.key);
  }

  const candidates = servicesFor(await timing.measure("fleet", () => readyServices(c.env)), request.model);
  const [{ service, load }] = candidates;
  end.finallyDo(countStarted(service));
  const { exits, context_length: contextLength } = service.model.fathom;
  const depths = exits.map(({ depth }) => depth);
  const offers = depthOffers({ planName, plan, exits: depths, load, wish: request.fathom });

  const prompt = endpoint.promptSize(request);
  const { field, value } = endpoint.maxTokens(request);
  const limit = answerLimit(value, plan.max_tokens, contextLength);
  const price = plan.price_nano_usd_per_layer_token;
  const worst = {
    promptTokens: prompt.atMost,
    maxTokens: limit.atMost,
    contextLength,
    price,
    mayClip: plan.clip_max_tokens === true,
  };

  const { result, lease } = await timing.measure("ledger", () =>
    account.reserve(
      {
        id: requestId,
        holder: { tenant, key_id: customer.keyId, plan: planName, model: service.model.id },
        offers: priceOffers(offers, worst),
        limits: {
          requestsPerMinute: plan.requests_per_minute,
          concurrency: plan.concurrency,
          monthlyBudget: plan.monthly_budget_micro_usd,
          dailyBudget: plan.daily_budget_micro_usd,
        },
        leaseMs: settingsOf(c.env).requestTimeoutMs + LEASE_GRACE_MS,
        idempotent,
      },
      (work) => c.executionCtx.waitUntil(work),
    ),
  );
  setRateHeaders(c, result.rate);
  if ("refused" in result) throw refusalError(result, planName);
  if ("answered" in result) return result;
  const { granted: offer } = result;
  log.add({ depth: offer.depth, reason: offer.reason });
  return {
    request,
    path: endpoint.path,
    maxTokensField: field,
    candidates,
    prompt,
    limit: clippedLimit(limit, offer.maxTokens),
    offer,
    lease,
    servedBy: "",
    keepAnswer: idempotent !== undefined,
  };
}
