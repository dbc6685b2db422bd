/** Positions per block: a prefix is shared in whole blocks. */
export const BLOCK = 32;

interface Node {
  key: string;
  parent: Node | undefined;
  children: Map<string, Node>;
  /** K/V of the block, undefined for the root. */
  kv: Float32Array | undefined;
  /** Layers that `kv` covers. */
  depth: number;
  /** Tick of the last use. */
  used: number;
}

/**
 * K/V of prompts that were run before, by token ids, in blocks of BLOCK positions: a tree whose paths are prefixes (RadixAttention,
 * Zheng et al. 2024, with blocks for edges). A block that was run deeper than asked serves as well. Within its bound the least
 * recently used block without a successor goes first.
 */
export class PrefixCache {
  readonly #root: Node = { key: "", parent: undefined, children: new Map(), kv: undefined, depth: 0, used: 0 };
  #bytes = 0;
  #tick = 0;
  #limit: number;

  /** @param limit bytes at most */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Changes the bound, and drops what is above it. */
  set limit(limit: number) {
    this.#limit = limit;
    while (this.#bytes > this.#limit && this.#evict(undefined));
  }

  /** K/V of the longest known prefix of `tokens`, block by block. Counts as a use. */
  find(tokens: readonly number[], depth: number): { length: number; blocks: { kv: Float32Array; depth: number }[] } {
    const blocks: { kv: Float32Array; depth: number }[] = [];
    let node = this.#root;
    this.#tick++;
    for (let at = 0; at + BLOCK <= tokens.length; at += BLOCK) {
      const next = node.children.get(keyOf(tokens, at));
      if (!next?.kv || next.depth < depth) break;
      next.used = this.#tick;
      blocks.push({ kv: next.kv, depth: next.depth });
      node = next;
    }
    return { length: blocks.length * BLOCK, blocks };
  }

  /**
   * Remembers the whole blocks of `tokens`; those known as deep are left as they are.
   * @param read K/V of positions `from` to `to` in the first `depth` layers, a copy
   */
  add(tokens: readonly number[], depth: number, read: (from: number, to: number) => Float32Array): void {
    let node = this.#root;
    this.#tick++;
    for (let at = 0; at + BLOCK <= tokens.length; at += BLOCK) {
      const key = keyOf(tokens, at);
      const known = node.children.get(key);
      if (known && known.depth >= depth) {
        known.used = this.#tick;
        node = known;
        continue;
      }
      const kv = read(at, at + BLOCK);
      const next = known ?? { key, parent: node, children: new Map(), kv, depth, used: this.#tick };
      this.#bytes += kv.byteLength - (known?.kv?.byteLength ?? 0);
      Object.assign(next, { kv, depth, used: this.#tick });
      node.children.set(key, next);
      while (this.#bytes > this.#limit) if (!this.#evict(next)) break;
      if (this.#bytes > this.#limit) {
        this.#drop(next);
        return;
      }
      node = next;
    }
  }

  /** Drops the least recently used leaf other than `keep`. */
  #evict(keep: Node | undefined): boolean {
    let oldest: Node | undefined;
    const visit = (node: Node): void => {
      for (const child of node.children.values()) visit(child);
      if (node !== this.#root && node !== keep && node.children.size === 0 && node.used < (oldest?.used ?? Infinity)) {
        oldest = node;
      }
    };
    visit(this.#root);
    if (!oldest) return false;
    this.#drop(oldest);
    return true;
  }

  #drop(node: Node): void {
    node.parent?.children.delete(node.key);
    this.#bytes -= node.kv?.byteLength ?? 0;
  }
}

function keyOf(tokens: readonly number[], at: number): string {
  return tokens.slice(at, at + BLOCK).join(",");
}
