const LF = 10;

/** A line of a file. */
export interface Line {
  /** From 1. */
  number: number;
  /** Where it begins, bytes. */
  offset: number;
  bytes: Uint8Array;
}

/** Cuts a file into lines as it comes in, holding no more than the line that is not complete. */
export class LineSplitter {
  readonly #maxBytes: number;
  #pieces: Uint8Array[] = [];
  #held = 0;
  #offset = 0;
  #number = 1;

  /** @param maxBytes longest line */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The lines that are complete with the next bytes. @throws RangeError when a line is too long. */
  push(chunk: Uint8Array): Line[] {
    const lines: Line[] = [];
    let from = 0;
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, from)) {
      this.#hold(chunk.subarray(from, end));
      lines.push(this.#take());
      from = end + 1;
    }
    if (from < chunk.length) this.#hold(chunk.slice(from));
    return lines;
  }

  /** The last line, if it does not end with a line feed. */
  end(): Line[] {
    return this.#held === 0 ? [] : [this.#take()];
  }

  #hold(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#held += piece.length;
    if (this.#held > this.#maxBytes)
      throw new RangeError(`line ${this.#number} is longer than ${this.#maxBytes} bytes`);
  }

  #take(): Line {
    const bytes = new Uint8Array(this.#held);
    let at = 0;
    for (const piece of this.#pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    const line = { number: this.#number, offset: this.#offset, bytes };
    this.#offset += this.#held + 1;
    this.#number++;
    this.#pieces = [];
    this.#held = 0;
    return line;
  }
}
