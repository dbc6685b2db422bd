import { ApiError } from "@fathom/shared";
import { chooseOrder } from "../fleet/choose-order.ts";
import { namedModel } from "../fleet/named-model.ts";
import { poolLoad } from "../fleet/pool-load.ts";
import { countStarted, readyServices } from "../fleet/pool-view.ts";
import type { ReadyService } from "../fleet/service-state.ts";
import { setRateHeaders } from "../http/rate-headers.ts";
import type { RequestEnd } from "../http/request-end.ts";
import { Lease } from "../ledger/lease.ts";
import type { ReserveResult } from "../ledger/ledger.ts";
import type { Offer } from "../ledger/offer.ts";
import { refusalError } from "../ledger/refusal-error.ts";
import { type AnswerLimit, answerLimit } from "../policy/answer-limit.ts";
import { depthOffers } from "../policy/depth-policy.ts";
import { dialOf, mergeDial } from "../policy/virtual-model.ts";
import { type PromptSize, priceOffers } from "../policy/worst-case.ts";
import type { RequestContext } from "../request-context.ts";
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
  services: readonly ReadyService[];
  prompt: PromptSize;
  limit: AnswerLimit;
  offer: Offer;
  lease: Lease;
}

/**
 * Decides the depth of a request from plan, load, budget and wish (its own and its model's name's), and reserves its worst case.
 * @throws ApiError for a request that cannot be served, a pool that is away, or a refusal by the ledger.
 */
export async function admit<T extends GenerationRequest>(
  c: RequestContext,
  endpoint: Endpoint<T>,
  asked: T,
  end: RequestEnd,
): Promise<Admitted> {
  const { log, timing, requestId, leaseId = requestId, customer } = c.var;
  const { plan, planName, tenant } = customer;
  log.add({ model: asked.model, stream: asked.stream === true });

  const { candidates, ...name } = namedModel(await timing.measure("fleet", () => readyServices(c.env)), asked.model);
  const services = chooseOrder(candidates, (candidate) => candidate.lastLoad, Math.random).map(
    ({ service }) => service,
  );
  const [{ service }] = candidates;
  end.finallyDo(countStarted(services[0] ?? service));
  const { exits, context_length: contextLength, profile } = service.model.fathom;
  const depths = exits.map(({ depth }) => depth);
  const load = poolLoad(candidates);
  const wish = mergeDial(asked.model, dialOf(name, depths, plan), asked.fathom);
  const offers = depthOffers({ planName, plan, exits: depths, profile, load, wish });

  const prompt = endpoint.promptSize(asked);
  const { field, value } = endpoint.maxTokens(asked);
  const limit = answerLimit(value, plan.max_tokens, contextLength);
  const price = plan.price_nano_usd_per_layer_token;
  const worst = { promptTokens: prompt.atMost, maxTokens: limit.atMost, contextLength, price };

  const ledger = c.env.LEDGER.getByName(tenant);
  const lease = new Lease(ledger, leaseId);
  const reserve = async (): Promise<ReserveResult> =>
    await ledger.reserve({
      id: leaseId,
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
  const request = { ...asked, model: name.base, fathom: wish };
  return { request, path: endpoint.path, maxTokensField: field, services, prompt, limit, offer, lease };
}
