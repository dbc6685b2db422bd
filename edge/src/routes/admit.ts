import { chooseOrder } from "../fleet/choose-order.ts";
import { namedModel } from "../fleet/named-model.ts";
import { poolLoad } from "../fleet/pool-load.ts";
import { countStarted, readyServices } from "../fleet/pool-view.ts";
import type { ReadyService } from "../fleet/service-state.ts";
import { setRateHeaders } from "../http/rate-headers.ts";
import type { RequestEnd } from "../http/request-end.ts";
import { Account } from "../ledger/account.ts";
import type { IdempotentRequest, KeyState } from "../ledger/kept-answers.ts";
import type { Lease } from "../ledger/lease.ts";
import { limitsOf } from "../ledger/limits-of.ts";
import type { Offer } from "../ledger/offer.ts";
import { keyConflict, refusalError } from "../ledger/refusal-error.ts";
import { type AnswerLimit, answerLimit, clippedLimit } from "../policy/answer-limit.ts";
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
 * Decides the depth of a request from plan, load, budget and wish (its own and its model's name's), and reserves its worst case;
 * or finds the answer that it got before.
 * @param idempotent the key under which it may have been answered before
 * @throws ApiError for a request that cannot be served, a pool that is away, or a refusal by the ledger.
 */
export async function admit<T extends GenerationRequest>(
  c: RequestContext,
  endpoint: Endpoint<T>,
  asked: T,
  end: RequestEnd,
  idempotent?: IdempotentRequest,
): Promise<Admitted | Answered> {
  const { log, timing, requestId, leaseId = requestId, customer } = c.var;
  const { plan, planName, tenant, keyId } = customer;
  log.add({ model: asked.model, stream: asked.stream === true });

  const account = new Account(c.env.LEDGER, tenant, plan.ledger_shards ?? 1);
  if (idempotent) {
    const state = await timing.measure("ledger", () => account.findAnswer(idempotent, keyId));
    if ("refused" in state) throw refusalError(state, planName);
    if (state.key === "answered") return { answered: state };
    if (state.key !== "new") throw keyConflict(state.key);
  }

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
        id: leaseId,
        holder: { tenant, key_id: keyId, plan: planName, model: service.model.id },
        offers: priceOffers(offers, worst),
        limits: limitsOf(plan),
        leaseMs: settingsOf(c.env).requestTimeoutMs + LEASE_GRACE_MS,
        idempotent,
      },
      (work) => c.executionCtx.waitUntil(work),
    ),
  );
  if ("rate" in result) setRateHeaders(c, result.rate);
  if ("refused" in result) throw refusalError(result, planName);
  if ("answered" in result) return result;
  const { granted: offer } = result;
  log.add({ depth: offer.depth, reason: offer.reason });
  const request = { ...asked, model: name.base, fathom: wish };
  return {
    request,
    path: endpoint.path,
    maxTokensField: field,
    services,
    prompt,
    limit: clippedLimit(limit, offer.maxTokens),
    offer,
    lease,
    servedBy: "",
    keepAnswer: idempotent !== undefined,
  };
}
