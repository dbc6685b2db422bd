import type { KvNeed } from "../kv-layout.ts";
import { type Plan, Scheduler, type SchedulerRequest } from "../scheduler.ts";

/** A request in the world around the scheduler: what was really run of it. */
export interface Actor extends SchedulerRequest {
  /** Tokens, the next one's input included. */
  length: number;
  /** Tokens of the answer that are still wanted. */
  wanted: number;
  /** Positions whose K/V is there. */
  computed: number;
  running: boolean;
  paused: boolean;
  /** Times it lost its K/V. */
  preempted: number;
  /** Steps since it last ran a position or was paused. */
  idle: number;
}

export type NewActor = Pick<Actor, "promptLength" | "depth" | "priority" | "maxStep" | "wanted">;

export interface WorldOptions {
  maxRunning: number;
  chunk: number;
  /** Layer-positions of K/V that fit. */
  memory: number;
  reusable?: (actor: Actor) => number;
}

/** Does what plans say, as the engine would, and checks each of them against what a plan must be. */
export class World {
  readonly scheduler: Scheduler;
  readonly actors = new Map<string, Actor>();
  readonly finished: Actor[] = [];
  readonly options: WorldOptions;
  steps = 0;
  #created = 0;
  /** Steps in a row in which batch requests stood back. */
  #standing = 0;

  constructor(options: WorldOptions) {
    this.options = options;
    const { maxRunning, chunk, reusable } = options;
    this.scheduler = new Scheduler({
      maxRunning,
      chunk,
      fits: (needs) => this.fits(needs),
      reusable: (id) => reusable?.(this.actor(id)) ?? 0,
    });
  }

  get running(): Actor[] {
    return [...this.actors.values()].filter(({ running }) => running);
  }

  actor(id: string): Actor {
    const actor = this.actors.get(id);
    if (!actor) throw new Error(`the plan names '${id}', which is not there`);
    return actor;
  }

  add(actor: NewActor): string {
    const id = `r${this.#created++}`;
    const { promptLength } = actor;
    const state = { length: promptLength, computed: 0, running: false, paused: false, preempted: 0, idle: 0 };
    this.actors.set(id, { ...actor, id, ...state });
    const { depth, priority, maxStep } = actor;
    this.scheduler.add({ id, promptLength, depth, priority, maxStep });
    return id;
  }

  remove(id: string): void {
    this.scheduler.remove(id);
    this.actors.delete(id);
  }

  pause(id: string, paused: boolean): void {
    this.scheduler.pause(id, paused);
    this.actor(id).paused = paused;
  }

  fits(needs: readonly KvNeed[]): boolean {
    return needs.reduce((sum, { depth, rows }) => sum + depth * rows, 0) <= this.options.memory;
  }

  /** Runs one step. @param accept tokens that a decoding request gets, of those that it may */
  step(accept: (actor: Actor) => number = () => 1): Plan | undefined {
    const plan = this.scheduler.next();
    if (!plan) {
      this.#checkIdle();
      return undefined;
    }
    this.steps++;
    this.#checkMoves(plan);
    for (const id of plan.preempted) {
      const actor = this.actor(id);
      Object.assign(actor, { running: false, computed: 0, preempted: actor.preempted + 1 });
    }
    for (const id of plan.admitted) {
      const actor = this.actor(id);
      const reused = Math.min(this.options.reusable?.(actor) ?? 0, actor.length - 1);
      Object.assign(actor, { running: true, computed: reused });
    }
    this.#checkRoom();
    this.#checkDecode(plan);
    for (const actor of this.actors.values()) actor.idle = actor.running && !actor.paused ? actor.idle + 1 : 0;
    this.#prefill(plan);
    for (const id of plan.decode) {
      const actor = this.actor(id);
      actor.idle = 0;
      const tokens = Math.max(1, Math.min(actor.maxStep, accept(actor)));
      // The newest token was drawn from the last one that ran.
      actor.computed = actor.length - 1 + tokens;
      this.#decide(actor, tokens);
    }
    check(this.scheduler.running === this.running.length, "the scheduler counts the running ones right");
    check(this.scheduler.waiting === this.actors.size - this.running.length, "and the waiting ones");
    check(this.scheduler.paused === this.running.filter(({ paused }) => paused).length, "and the paused ones");
    return plan;
  }

  #decide(actor: Actor, tokens: number): void {
    actor.length += tokens;
    actor.wanted -= tokens;
    if (actor.wanted <= 0) {
      this.finished.push(actor);
      this.remove(actor.id);
    } else this.scheduler.advance(actor.id, actor.length);
  }

  #prefill({ prefill }: Plan): void {
    if (!prefill) return;
    const actor = this.actor(prefill.id);
    check(actor.running && !actor.paused, "only a running request that is not paused is prefilled");
    check(prefill.from === actor.computed, "positions run in order and without gaps");
    check(prefill.to > prefill.from, "a prefill runs something");
    check(prefill.to - prefill.from <= this.options.chunk, "a prefill is one chunk at most");
    const answered = actor.length > actor.promptLength;
    check(prefill.to <= (answered ? actor.length - 1 : actor.length), "an answer's newest token is left to decoding");
    check(prefill.last === (!answered && prefill.to === actor.promptLength), "`last` is said behind a prompt only");
    actor.computed = prefill.to;
    actor.idle = 0;
    if (prefill.last) this.#decide(actor, 1);
  }

  #checkMoves({ admitted, preempted }: Plan): void {
    check(new Set(admitted).size === admitted.length, "nobody is admitted twice in a step");
    check(new Set(preempted).size === preempted.length, "nobody is preempted twice in a step");
    for (const id of preempted) check(this.actor(id).running, "only running requests are preempted");
    for (const id of admitted) {
      const { running, paused } = this.actor(id);
      check(!paused, "a paused request is not admitted");
      check(!running, "only waiting requests are admitted");
      check(!preempted.includes(id), "nobody is preempted for nothing");
    }
  }

  #checkRoom(): void {
    const { running } = this;
    check(running.length <= this.options.maxRunning, "no more run than may");
    const needs = running.map(({ depth, length, maxStep }) => ({ depth, rows: length + maxStep }));
    check(running.length <= 1 || this.fits(needs), "what runs fits, unless it is alone");
  }

  #checkDecode({ prefill, decode }: Plan): void {
    check(new Set(decode).size === decode.length, "nobody decodes twice in a step");
    const interactive = prefill !== undefined && this.actor(prefill.id).priority.class === "interactive";
    let standing = false;
    for (const actor of this.actors.values()) {
      const ready = actor.running && !actor.paused && actor.length > actor.promptLength;
      const decodes = ready && actor.computed === actor.length - 1 && actor.id !== prefill?.id;
      if (decode.includes(actor.id)) {
        check(decodes, "only requests whose positions but the newest were run decode");
        continue;
      }
      if (!decodes) continue;
      check(interactive && actor.priority.class === "batch", "a decoding request waits for interactive prompts only");
      standing = true;
    }
    this.#standing = standing ? this.#standing + 1 : 0;
    check(this.#standing < 8, "batch requests decode in every eighth step at least");
  }

  /** Nothing was planned: so there must be nothing to do. */
  #checkIdle(): void {
    const { running } = this;
    check(!running.some(({ paused }) => !paused), "a step runs what can run");
    if (running.length > 0) return;
    check(
      [...this.actors.values()].every(({ paused }) => paused),
      "an empty engine admits who waits",
    );
  }
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`does not hold: ${what}`);
}
