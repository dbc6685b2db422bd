import { ApiError } from "@fathom/shared";
import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { servicesFor } from "../fleet/choose-service.ts";
import { poolLoad } from "../fleet/pool-load.ts";
import { type Candidate, countStarted, readyServices } from "../fleet/pool-view.ts";
import { setRateHeaders } from "../http/rate-headers.ts";
import { readJson } from "../http/read-json.ts";
import type { RequestEnd } from "../http/request-end.ts";
import { Lease } from "../ledger/lease.ts";
import type { ReserveResult } from "../ledger/ledger.ts";
import type { Offer } from "../ledger/offer.ts";
import { refusalError } from "../ledger/refusal-error.ts";
import { type AnswerLimit, answerLimit } from "../policy/answer-limit.ts";
import { depthOffers } from "../policy/depth-policy.ts";
import { type PromptSize, priceOffers } from "../policy/worst-case.ts";
import { settingsOf } from "../settings.ts";
import type { Endpoint, GenerationRequest, MaxTokensField } from "./endpoint.ts";

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
}

/**
 * Reads a request, decides its depth from plan, load, budget and wish, and reserves its worst case.
 * @throws ApiError for a request that cannot be served, a pool that is away, or a refusal by the ledger.
 */
export async function admit<T extends GenerationRequest>(
  c: Context<AppEnv>,
  endpoint: Endpoint<T>,
  end: RequestEnd,
): Promise<Admitted> {
  const { log, timing, requestId, customer } = c.var;
  const { plan, planName, tenant } = customer;
  const request = await readJson(c, endpoint.schema);
  log.add({ model: request.model, stream: request.stream === true });

  const candidates = servicesFor(await timing.measure("fleet", () => readyServices(c.env)), request.model);
  const [{ service }] = candidates;
  end.finallyDo(countStarted(service));
  const { exits, context_length: contextLength, profile } = service.model.fathom;
  const depths = exits.map(({ depth }) => depth);
  const load = poolLoad(candidates);
  const offers = depthOffers({ planName, plan, exits: depths, profile, load, wish: request.fathom });

  const prompt = endpoint.promptSize(request);
  const { field, value } = endpoint.maxTokens(request);
  const limit = answerLimit(value, plan.max_tokens, contextLength);
  const price = plan.price_nano_usd_per_layer_token;
  const worst = { promptTokens: prompt.atMost, maxTokens: limit.atMost, contextLength, price };

  const ledger = c.env.LEDGER.getByName(tenant);
  const lease = new Lease(ledger, requestId);
  const reserve = async (): Promise<ReserveResult> =>
    await ledger.reserve({
      id: requestId,
      offers: priceOffers(offers, worst),
      limits: {
        requestsPerMinute: plan.requests_per_minute,
        concurrency: plan.concurrency,
        monthlyBudget: plan.monthly_budget_micro_usd,
      },
      leaseMs: settingsOf(c.env).requestTimeoutMs + LEASE_GRACE_MS,
    });
  const result = await timing.measure("ledger", reserve).catch((cause: unknown) => {
    // It may have been reserved all the same.
    c.executionCtx.waitUntil(lease.release());
    throw new ApiError("upstream_unavailable", "The account cannot be reached.", { retryAfter: 2, cause });
  });
  setRateHeaders(c, result.rate);
  if ("refused" in result) throw refusalError(result, planName);
  const { granted: offer } = result;
  log.add({ depth: offer.depth, reason: offer.reason });
  return { request, path: endpoint.path, maxTokensField: field, candidates, prompt, limit, offer, lease };
}
