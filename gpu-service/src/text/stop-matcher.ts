/** What may be sent after a piece of text went through the matcher. */
export interface StopResult {
  /** Text that is certain not to belong to a stop string. */
  text: string;
  /** A stop string was completed; the text before it has been returned and nothing follows. */
  stopped: boolean;
}

/** One stop string and how much of it the text seen so far ends with (Knuth–Morris–Pratt). */
interface Automaton {
  stop: string;
  /** failure[i]: length of the longest proper prefix of the stop string that its first i + 1 units end with. */
  failure: number[];
  matched: number;
}

/**
 * Finds stop strings in a text that comes in pieces, however the pieces are cut. The stop string that is completed first
 * ends the text; of two completed at the same place the longer one does. The match itself is cut, and text that may be the
 * beginning of a stop string is held back until it is known not to be.
 */
export class StopMatcher {
  readonly #automata: readonly Automaton[];
  #held = "";

  /** @param stops stop strings, none empty */
  constructor(stops: readonly string[]) {
    // An ill-formed stop string could cut a surrogate pair in two.
    this.#automata = stops.map((stop) => automaton(stop.toWellFormed()));
  }

  /** Takes the next piece; not to be called after a match. */
  push(piece: string): StopResult {
    if (this.#automata.length === 0) return { text: piece, stopped: false };
    const text = this.#held + piece;
    for (let i = this.#held.length; i < text.length; i++) {
      const length = this.#advance(text.charAt(i));
      if (length > 0) {
        this.#held = "";
        return { text: text.slice(0, i + 1 - length), stopped: true };
      }
    }
    const keep = Math.max(...this.#automata.map(({ matched }) => matched));
    this.#held = text.slice(text.length - keep);
    return { text: text.slice(0, text.length - keep), stopped: false };
  }

  /** The text still held back, once nothing follows. */
  end(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }

  /** Feeds one UTF-16 unit; the length of the longest stop string that it completes, or 0. */
  #advance(unit: string): number {
    let longest = 0;
    for (const automaton of this.#automata) {
      const { stop, failure } = automaton;
      while (automaton.matched > 0 && stop[automaton.matched] !== unit) {
        automaton.matched = failure[automaton.matched - 1] ?? 0;
      }
      if (stop[automaton.matched] === unit) automaton.matched++;
      if (automaton.matched === stop.length) longest = Math.max(longest, stop.length);
    }
    return longest;
  }
}

function automaton(stop: string): Automaton {
  if (stop === "") throw new RangeError("a stop string must not be empty");
  const failure = [0];
  let length = 0;
  for (let i = 1; i < stop.length; i++) {
    while (length > 0 && stop[i] !== stop[length]) length = failure[length - 1] ?? 0;
    if (stop[i] === stop[length]) length++;
    failure.push(length);
  }
  return { stop, failure, matched: 0 };
}
