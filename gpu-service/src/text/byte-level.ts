/**
 * The byte behind each character of a byte-level BPE vocabulary (GPT-2's table): printable Latin-1 characters stand for
 * themselves, the other bytes for the characters from U+0100 on, in ascending order.
 */
export const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = byteTable();

function byteTable(): Map<string, number> {
  const table = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return table;
}

/** The bytes of a byte-level token; a token with a character outside the table stands for its own UTF-8 text. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) return new TextEncoder().encode(token);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
