import { ApiError } from "@fathom/shared";
import { z } from "zod";
import { FileStore } from "../files/file-store.ts";
import { readyServices } from "../fleet/pool-view.ts";
import { Account } from "../ledger/account.ts";
import type { Plans } from "../policy/plan.ts";
import { settingsOf } from "../settings.ts";
import type { Ticket, Work } from "./batch.ts";
import { parseLine } from "./batch-line.ts";
import { batchOf } from "./batch-of.ts";
import { batchRoom } from "./batch-plan.ts";
import type { ClaimedLine, LineOutcome } from "./batch-store.ts";
import { refusedResult } from "./result-line.ts";
import { runLine } from "./run-line.ts";

const TicketMessage = z.object({ tenant: z.string(), batch: z.string(), turn: z.int() });

/** The queue of the tickets, as wrangler.jsonc names it. */
export const TICKETS = "fathom-batch";

/** Lines of one batch that run at once, at most. */
const LINES_AT_ONCE = 8;

/** After this, what is left goes to the next ticket: an invocation must not last for ever, milliseconds. */
const TURN_MS = 60_000;

type Surroundings = { env: Env; ctx: Pick<ExecutionContext, "waitUntil">; plans: Plans };

/** Runs the lines of the batches whose tickets are in a message batch of the queue. */
export async function consumeTickets(messages: MessageBatch, { env, ctx, plans }: Surroundings): Promise<void> {
  await Promise.all(
    messages.messages.map(async (message) => {
      const ticket = TicketMessage.safeParse(message.body);
      if (!ticket.success) {
        console.error(JSON.stringify({ queue: messages.queue, dropped: "a message that is no ticket" }));
        return message.ack();
      }
      try {
        await runTurn({ env, ctx, plans }, ticket.data);
        message.ack();
      } catch (error) {
        console.error(JSON.stringify({ batch: ticket.data.batch, error: String(error) }));
        message.retry({ delaySeconds: 2 });
      }
    }),
  );
}

/** @throws when the batch or its file cannot be reached; the ticket is good again then. */
async function runTurn(at: Surroundings, ticket: Ticket): Promise<void> {
  const batch = batchOf(at.env, ticket.tenant, ticket.batch);
  const { turn } = ticket;
  for (const until = Date.now() + TURN_MS; ; ) {
    const room = await roomFor(at.env);
    if (room === 0) return await batch.pass(turn, true);
    const work = await batch.claim(turn, Math.min(room, LINES_AT_ONCE));
    if (!work || work.lines.length === 0) return;
    const outcomes = await allOf(work.lines.map((line) => runClaimed(at, ticket, work, line)));
    if (outcomes.includes("retry")) return await batch.pass(turn, true);
    if (Date.now() >= until) return await batch.pass(turn, false);
  }
}

/** All results. The first failure is thrown only when nothing is running any more: the ticket is good again then. */
async function allOf<T>(work: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}

/** How many lines the pool has room for now; none when it cannot be asked. */
async function roomFor(env: Env): Promise<number> {
  const { batchMaxLoad, serviceCapacity } = settingsOf(env);
  const candidates = await readyServices(env).catch(() => []);
  const services = candidates.map(({ load, service }) => ({
    load,
    capacity: service.load.capacity ?? serviceCapacity,
  }));
  return batchRoom(services, batchMaxLoad);
}

async function runClaimed(
  { env, ctx, plans }: Surroundings,
  { tenant, batch: batchId }: Ticket,
  work: Work,
  line: ClaimedLine,
): Promise<LineOutcome["kind"] | "gone"> {
  const batch = batchOf(env, tenant, batchId);
  const leaseOf = (attempt: number): string => `${batchId}-${line.line}-${attempt}`;
  let { attempt } = line;
  if (line.again) {
    // Charged already: the line is run again for its answer, and not charged again. Else the old hold is ended and a new
    // one is needed, since an ended one neither holds nor charges anything.
    const shards = plans.get(work.holder.planName)?.ledger_shards ?? 1;
    const { state } = await new Account(env.LEDGER, tenant, shards).release(leaseOf(attempt));
    if (state !== "settled") {
      const renewed = await batch.renew(line.line, attempt);
      if (renewed === undefined) return "gone";
      attempt = renewed;
    }
  }
  const { offset, length, failures, customId } = line;
  const text = await new FileStore(env.FILES, tenant).open(work.inputFileId, { offset, length });
  const request = text && parseLine(await text.bytes(), line.line, work.endpoint);
  let outcome: LineOutcome;
  if (request && "custom_id" in request) {
    const { holder, endpoint } = work;
    outcome = await runLine(env, ctx, plans, { holder, endpoint, request, leaseId: leaseOf(attempt), failures });
  } else {
    const error = new ApiError("not_found", "The input file was deleted.", { param: "input_file_id" });
    outcome = { kind: "done", ok: false, result: refusedResult(customId, crypto.randomUUID(), error) };
  }
  await batch.finish(line.line, attempt, outcome);
  return outcome.kind;
}
