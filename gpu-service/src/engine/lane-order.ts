/** Copy lane `from` onto the free lane `to`. Moves are to be made in the order in which they come. */
export interface LaneMove {
  id: string;
  from: number;
  to: number;
}

interface Lane {
  id: string;
  depth: number;
}

/**
 * Which sequence has which lane. Lanes are kept without gaps and deepest first, so that the sequences that go on beyond any
 * exit are the first ones: a batch that gets shallower stays one run of neighbouring lanes. Pure: it only says what to copy,
 * and needs at most one copy per depth for every sequence that comes or goes.
 */
export class LaneOrder {
  readonly #lanes: Lane[] = [];
  readonly #index = new Map<string, number>();

  get size(): number {
    return this.#lanes.length;
  }

  get ids(): string[] {
    return this.#lanes.map(({ id }) => id);
  }

  has(id: string): boolean {
    return this.#index.has(id);
  }

  /** @throws RangeError when the sequence has no lane. */
  lane(id: string): number {
    const lane = this.#index.get(id);
    if (lane === undefined) throw new RangeError(`sequence '${id}' has no lane`);
    return lane;
  }

  /** Lanes of sequences that are deeper than `layers`: always the first ones. */
  deeperThan(layers: number): number {
    const end = this.#lanes.findIndex(({ depth }) => depth <= layers);
    return end < 0 ? this.#lanes.length : end;
  }

  /** Gives a sequence a lane, which is free once the moves are made. @throws RangeError when it has one. */
  insert(id: string, depth: number): LaneMove[] {
    if (this.#index.has(id)) throw new RangeError(`sequence '${id}' has a lane already`);
    const place = this.deeperThan(depth - 1);
    const moves: LaneMove[] = [];
    let hole = this.#lanes.length;
    while (hole > place) {
      const group = this.#lanes[hole - 1]?.depth;
      const first = Math.max(
        place,
        this.#lanes.findIndex((lane) => lane.depth === group),
      );
      moves.push(this.#move(first, hole));
      hole = first;
    }
    this.#put(hole, { id, depth });
    return moves;
  }

  /** Takes a sequence's lane away and closes the gap. @throws RangeError when it has none. */
  remove(id: string): LaneMove[] {
    let hole = this.lane(id);
    this.#index.delete(id);
    const moves: LaneMove[] = [];
    let group = this.#lanes[hole]?.depth;
    while (hole < this.#lanes.length) {
      const last = this.#lanes.findLastIndex((lane) => lane.depth === group);
      if (last > hole) {
        moves.push(this.#move(last, hole));
        hole = last;
      }
      const next = this.#lanes[hole + 1];
      if (!next) break;
      group = next.depth;
    }
    this.#lanes.length = hole;
    return moves;
  }

  #move(from: number, to: number): LaneMove {
    const lane = this.#lanes[from];
    if (!lane) throw new RangeError(`there is no lane ${from}`);
    this.#put(to, lane);
    return { id: lane.id, from, to };
  }

  #put(at: number, lane: Lane): void {
    this.#lanes[at] = lane;
    this.#index.set(lane.id, at);
  }
}
