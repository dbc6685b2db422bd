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
}

/**
 * K/V of prompts that were run before, by token ids, in blocks of BLOCK positions: a tree whose paths are prefixes (RadixAttention,
 * Zheng et al. 2024, with blocks for edges). A block that was run deeper than asked serves as well. Within its bound the least
 * recently used block without a successor goes first. Prompts share prefixes only under the same salt (vLLM's `cache_salt`), so
 * that nobody can tell from an answer's speed what another tenant has asked.
 */
export class PrefixCache {
  readonly #root: Node = { key: "", parent: undefined, children: new Map(), kv: undefined, depth: 0 };
  /** All blocks, the least recently used first, and every one behind those that continue it: the first is always a leaf. */
  readonly #byUse = new Set<Node>();
  #bytes = 0;
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
    this.#shrink();
  }

  /** K/V of the longest known prefix of `tokens`, block by block. Counts as a use. */
  find(
    tokens: readonly number[],
    depth: number,
    salt?: string,
  ): { length: number; blocks: { kv: Float32Array; depth: number }[] } {
    const blocks: { kv: Float32Array; depth: number }[] = [];
    const path: Node[] = [];
    let node = this.#root;
    for (let at = 0; at + BLOCK <= tokens.length; at += BLOCK) {
      const next = node.children.get(keyOf(tokens, at, salt));
      if (!next?.kv || next.depth < depth) break;
      blocks.push({ kv: next.kv, depth: next.depth });
      this.#byUse.delete(next);
      path.push(next);
      node = next;
    }
    this.#used(path);
    return { length: blocks.length * BLOCK, blocks };
  }

  /**
   * Remembers the whole blocks of `tokens`; those known as deep are left as they are.
   * @param read K/V of positions `from` to `to` in the first `depth` layers, a copy
   */
  add(tokens: readonly number[], depth: number, read: (from: number, to: number) => Float32Array, salt?: string): void {
    const path: Node[] = [];
    let node = this.#root;
    for (let at = 0; at + BLOCK <= tokens.length; at += BLOCK) {
      const key = keyOf(tokens, at, salt);
      const next = node.children.get(key) ?? { key, parent: node, children: new Map(), kv: undefined, depth: 0 };
      // What belongs to the path cannot be dropped while the path is built.
      this.#byUse.delete(next);
      if (next.depth < depth) {
        const kv = read(at, at + BLOCK);
        this.#bytes += kv.byteLength - (next.kv?.byteLength ?? 0);
        next.kv = kv;
        next.depth = depth;
        node.children.set(key, next);
        this.#shrink();
        if (this.#bytes > this.#limit) {
          this.#drop(next);
          break;
        }
      }
      path.push(next);
      node = next;
    }
    this.#used(path);
  }

  /** Puts the blocks of a path behind all others, the deepest first. */
  #used(path: readonly Node[]): void {
    for (const node of path.toReversed()) this.#byUse.add(node);
  }

  #shrink(): void {
    for (const node of this.#byUse) {
      if (this.#bytes <= this.#limit) return;
      this.#drop(node);
    }
  }

  #drop(node: Node): void {
    this.#byUse.delete(node);
    node.parent?.children.delete(node.key);
    this.#bytes -= node.kv?.byteLength ?? 0;
  }
}

function keyOf(tokens: readonly number[], at: number, salt: string | undefined): string {
  const block = tokens.slice(at, at + BLOCK).join(",");
  return at === 0 && salt !== undefined ? `${block}|${salt}` : block;
}
