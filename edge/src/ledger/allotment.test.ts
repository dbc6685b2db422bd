import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type Allotment,
  giveBack,
  grant,
  grantRest,
  held,
  lentTo,
  NO_ALLOTMENT,
  NO_SHARE,
  receive,
  type Share,
  takeBack,
} from "./allotment.ts";

const SHARDS = 3;
const BUDGET = 1000;

interface Shard {
  allotment: Allotment;
  spent: number;
}

/** A message keeps what it said when it was sent; it may arrive at any time, several times, or never. */
type Message =
  | { to: "lender"; shard: number; received: number; givenBack: number; need: number }
  | { to: "shard"; shard: number; granted: number };

const shardIndex = fc.integer({ min: 0, max: SHARDS - 1 });
const step = fc.oneof(
  fc.record({ what: fc.constant("ask" as const), shard: shardIndex, need: fc.integer({ min: 1, max: 400 }) }),
  fc.record({ what: fc.constant("spend" as const), shard: shardIndex, amount: fc.integer({ min: 1, max: 200 }) }),
  fc.record({
    what: fc.constant("give back" as const),
    shard: shardIndex,
    share: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
  fc.record({ what: fc.constant("deliver" as const), pick: fc.nat(1000), again: fc.boolean() }),
  fc.record({ what: fc.constant("lose" as const), pick: fc.nat(1000) }),
);

class World {
  readonly shares: Share[] = Array.from({ length: SHARDS }, () => NO_SHARE);
  readonly shards: Shard[] = Array.from({ length: SHARDS }, () => ({ allotment: NO_ALLOTMENT, spent: 0 }));
  readonly #messages: Message[] = [];

  get free(): number {
    return BUDGET - this.shares.reduce((sum, share) => sum + lentTo(share), 0);
  }

  at(index: number): { share: Share; shard: Shard } {
    const [share, shard] = [this.shares[index], this.shards[index]];
    if (!share || !shard) throw new Error(`no shard ${index}`);
    return { share, shard };
  }

  ask(index: number, need: number): void {
    this.#messages.push({ to: "lender", shard: index, need, ...this.at(index).shard.allotment });
  }

  spend(index: number, amount: number): void {
    const { shard } = this.at(index);
    if (amount <= held(shard.allotment) - shard.spent) shard.spent += amount;
  }

  giveBack(index: number, share: number): void {
    const { shard } = this.at(index);
    const idle = held(shard.allotment) - shard.spent;
    shard.allotment = giveBack(shard.allotment, Math.floor(idle * share));
    this.ask(index, 0);
  }

  deliver(pick: number, again: boolean): void {
    if (this.#messages.length === 0) return;
    const index = pick % this.#messages.length;
    const [message] = again ? this.#messages.slice(index) : this.#messages.splice(index, 1);
    if (!message) return;
    const { share, shard } = this.at(message.shard);
    if (message.to === "shard") {
      shard.allotment = receive(shard.allotment, message.granted);
      return;
    }
    const heard = takeBack(share, message.givenBack);
    this.shares[message.shard] = heard;
    const more = grant(heard, message.received, message.need, this.free, SHARDS);
    this.shares[message.shard] = more === heard ? grantRest(heard, message.received, message.need, this.free) : more;
    this.#messages.push({ to: "shard", shard: message.shard, granted: this.at(message.shard).share.granted });
  }

  lose(pick: number): void {
    if (this.#messages.length > 0) this.#messages.splice(pick % this.#messages.length, 1);
  }
}

function run(
  world: World,
  steps: readonly (typeof step extends fc.Arbitrary<infer T> ? T : never)[],
  check: () => void,
) {
  for (const s of steps) {
    if (s.what === "ask") world.ask(s.shard, s.need);
    else if (s.what === "spend") world.spend(s.shard, s.amount);
    else if (s.what === "give back") world.giveBack(s.shard, s.share);
    else if (s.what === "deliver") world.deliver(s.pick, s.again);
    else world.lose(s.pick);
    check();
  }
}

const steps = fc.array(step, { maxLength: 120 });

test("whatever is lost, repeated or late, no unit is in two hands", () => {
  fc.assert(
    fc.property(steps, (list) => {
      const world = new World();
      run(world, list, () => {
        expect(world.free).toBeGreaterThanOrEqual(0);
        let inHands = world.free;
        for (let i = 0; i < SHARDS; i++) {
          const { share, shard } = world.at(i);
          expect(shard.allotment.received).toBeLessThanOrEqual(share.granted);
          expect(share.returned).toBeLessThanOrEqual(shard.allotment.givenBack);
          expect(held(shard.allotment)).toBeGreaterThanOrEqual(shard.spent);
          const onTheWay = share.granted - shard.allotment.received + (shard.allotment.givenBack - share.returned);
          inHands += held(shard.allotment) + onTheWay;
        }
        expect(inHands).toBe(BUDGET);
      });
    }),
  );
});

test("once every shard was heard again, everything that is not spent is free", () => {
  fc.assert(
    fc.property(steps, (list) => {
      const world = new World();
      run(world, list, () => undefined);
      let spent = 0;
      for (let i = 0; i < SHARDS; i++) {
        const { share, shard } = world.at(i);
        shard.allotment = receive(shard.allotment, share.granted);
        shard.allotment = giveBack(shard.allotment, held(shard.allotment) - shard.spent);
        world.shares[i] = takeBack(share, shard.allotment.givenBack);
        spent += shard.spent;
      }
      expect(world.free).toBe(BUDGET - spent);
    }),
  );
});

test("asking again after a lost answer grants nothing more", () => {
  const first = grant(NO_SHARE, 0, 10, 100, 2);
  expect(first).toEqual({ granted: 25, returned: 0 });
  expect(grant(first, 0, 10, 75, 2)).toEqual(first);
  expect(grantRest(first, 0, 30, 75)).toEqual({ granted: 30, returned: 0 });
});

test("refuses to give back, or to take back, what is not held", () => {
  expect(() => giveBack(NO_ALLOTMENT, 1)).toThrow(RangeError);
  expect(() => takeBack(NO_SHARE, 1)).toThrow(RangeError);
});
