import type { Architecture } from "@fathom/shared";
import { KvBank } from "./kv-bank.ts";
import { bankOf, type LayerRange, strideFor } from "./kv-layout.ts";

/** K/V of all live sequences in main memory, in banks of sequences of similar length. */
export class KvStore {
  readonly #a: Architecture;
  readonly #segments: readonly LayerRange[];
  readonly #banks = new Map<number, KvBank>();
  readonly #home = new Map<string, { bank: number; depth: number; rows: number }>();

  constructor(a: Architecture, segments: readonly LayerRange[]) {
    this.#a = a;
    this.#segments = segments;
  }

  /** Bytes allocated. */
  get bytes(): number {
    let bytes = 0;
    for (const bank of this.#banks.values()) bytes += bank.bytes;
    return bytes;
  }

  /** Makes room for `rows` positions of a sequence that may be new. */
  reserve(id: string, depth: number, rows: number): void {
    const home = this.#home.get(id);
    if (home && rows <= home.rows) return;
    const size = bankOf(rows);
    if (home?.bank === size) {
      home.rows = rows;
      this.bank(id).grow(strideFor(rows));
      return;
    }
    const bank = this.#banks.get(size) ?? new KvBank(this.#a, this.#segments);
    this.#banks.set(size, bank);
    bank.add(id, depth, strideFor(rows));
    if (home) {
      this.#copy(id, this.#bankOf(home.bank), bank, depth);
      this.#drop(id, home.bank);
    }
    this.#home.set(id, { bank: size, depth, rows });
  }

  /** Frees a sequence's K/V; one that has none is left alone. */
  release(id: string): void {
    const home = this.#home.get(id);
    if (!home) return;
    this.#home.delete(id);
    this.#drop(id, home.bank);
  }

  /** Layers in which a sequence has K/V. */
  depth(id: string): number {
    return this.#home.get(id)?.depth ?? 0;
  }

  /** Gives back memory that the present sequences do not need. */
  compact(): void {
    for (const [size, bank] of this.#banks) {
      const longest = [...this.#home.values()].reduce(
        (most, { bank, rows }) => (bank === size ? Math.max(most, rows) : most),
        0,
      );
      bank.compact(strideFor(longest));
    }
  }

  /** The bank in which a sequence has its lane. */
  bank(id: string): KvBank {
    const home = this.#home.get(id);
    if (!home) throw new RangeError(`sequence '${id}' has no K/V`);
    return this.#bankOf(home.bank);
  }

  #bankOf(size: number): KvBank {
    const bank = this.#banks.get(size);
    if (!bank) throw new RangeError(`there is no bank of ${size}`);
    return bank;
  }

  #drop(id: string, size: number): void {
    const bank = this.#bankOf(size);
    bank.remove(id);
    if (bank.order.size === 0) this.#banks.delete(size);
  }

  #copy(id: string, from: KvBank, to: KvBank, depth: number): void {
    const rows = from.used(id);
    const [source, target] = [from.order.lane(id), to.order.lane(id)];
    const length = rows * this.#a.head_dim;
    for (const [s, range] of this.#segments.entries()) {
      if (range.from >= depth) break;
      for (let i = 0; i < range.to - range.from; i++) {
        const [a, b] = [from.layer(s, i), to.layer(s, i)];
        for (let head = 0; head < this.#a.kv_heads; head++) {
          const at = from.offset(source, head, 0);
          b.keys.set(a.keys.subarray(at, at + length), to.offset(target, head, 0));
          b.values.set(a.values.subarray(at, at + length), to.offset(target, head, 0));
        }
      }
    }
    to.mark(id, rows);
  }
}
