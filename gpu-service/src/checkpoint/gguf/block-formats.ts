import { asFloat16, bfloat16ToFloat32 } from "../float16.ts";

/** How GGUF stores a run of values: blocks of fixed length that share scales. */
export interface BlockFormat {
  name: string;
  /** Values and bytes of one block. */
  values: number;
  bytes: number;
  /** Decodes whole blocks; `out` holds `values` floats for every `bytes` of `raw`. */
  decode(raw: Uint8Array, out: Float32Array): void;
}

/** Values of a K-quant block. */
const SUPER_BLOCK = 256;

/**
 * The formats that can be imported, by their number in GGUF (`ggml_type`).
 * Layouts: ggml-common.h and ggml-quants.c of ggml.
 */
export const BLOCK_FORMATS: ReadonlyMap<number, BlockFormat> = new Map([
  [0, { name: "F32", values: 1, bytes: 4, decode: decodeF32 }],
  [1, { name: "F16", values: 1, bytes: 2, decode: decodeF16 }],
  [2, { name: "Q4_0", values: 32, bytes: 18, decode: decodeQ4_0 }],
  [3, { name: "Q4_1", values: 32, bytes: 20, decode: decodeQ4_1 }],
  [8, { name: "Q8_0", values: 32, bytes: 34, decode: decodeQ8_0 }],
  [12, { name: "Q4_K", values: SUPER_BLOCK, bytes: 144, decode: decodeQ4_K }],
  [14, { name: "Q6_K", values: SUPER_BLOCK, bytes: 210, decode: decodeQ6_K }],
  [30, { name: "BF16", values: 1, bytes: 2, decode: decodeBF16 }],
]);

function decodeF32(raw: Uint8Array, out: Float32Array): void {
  new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(raw);
}

function decodeF16(raw: Uint8Array, out: Float32Array): void {
  out.set(asFloat16(raw));
}

function decodeBF16(raw: Uint8Array, out: Float32Array): void {
  const aligned = raw.byteOffset % 2 === 0 ? raw : raw.slice();
  bfloat16ToFloat32(new Uint16Array(aligned.buffer, aligned.byteOffset, out.length), out);
}

/** float16 d, then 32 signed bytes: value = d · q. */
function decodeQ8_0(raw: Uint8Array, out: Float32Array): void {
  const view = viewOf(raw);
  for (let at = 0, y = 0; at < raw.length; at += 34, y += 32) {
    const d = view.getFloat16(at, true);
    for (let i = 0; i < 32; i++) out[y + i] = d * view.getInt8(at + 2 + i);
  }
}

/** float16 d, then 16 bytes whose low nibbles are the first half: value = d · (q − 8). */
function decodeQ4_0(raw: Uint8Array, out: Float32Array): void {
  const view = viewOf(raw);
  for (let at = 0, y = 0; at < raw.length; at += 18, y += 32) {
    const d = view.getFloat16(at, true);
    for (let i = 0; i < 16; i++) {
      const q = raw[at + 2 + i] ?? 0;
      out[y + i] = d * ((q & 15) - 8);
      out[y + 16 + i] = d * ((q >> 4) - 8);
    }
  }
}

/** float16 d and m, then 16 bytes as in Q4_0: value = d · q + m. */
function decodeQ4_1(raw: Uint8Array, out: Float32Array): void {
  const view = viewOf(raw);
  for (let at = 0, y = 0; at < raw.length; at += 20, y += 32) {
    const d = view.getFloat16(at, true);
    const m = view.getFloat16(at + 2, true);
    for (let i = 0; i < 16; i++) {
      const q = raw[at + 4 + i] ?? 0;
      out[y + i] = d * (q & 15) + m;
      out[y + 16 + i] = d * (q >> 4) + m;
    }
  }
}

/**
 * float16 d and dmin, 12 bytes with eight 6-bit scales and minima, 128 bytes of nibbles.
 * Sub-block j of 32 values: value = d · scale[j] · q − dmin · min[j].
 */
function decodeQ4_K(raw: Uint8Array, out: Float32Array): void {
  const view = viewOf(raw);
  for (let at = 0, y = 0; at < raw.length; at += 144, y += SUPER_BLOCK) {
    const d = view.getFloat16(at, true);
    const dmin = view.getFloat16(at + 2, true);
    const packed = at + 4;
    for (let j = 0; j < 8; j++) {
      const low = raw[packed + (j & 3)] ?? 0;
      const high = raw[packed + 4 + (j & 3)] ?? 0;
      const rest = raw[packed + 8 + (j & 3)] ?? 0;
      const scale = d * (j < 4 ? low & 63 : (rest & 15) | ((low >> 6) << 4));
      const minimum = dmin * (j < 4 ? high & 63 : (rest >> 4) | ((high >> 6) << 4));
      // Two sub-blocks share 32 bytes: the even one takes the low nibbles.
      const codes = at + 16 + (j >> 1) * 32;
      const shift = (j & 1) * 4;
      for (let i = 0; i < 32; i++) {
        out[y + j * 32 + i] = scale * (((raw[codes + i] ?? 0) >> shift) & 15) - minimum;
      }
    }
  }
}

/**
 * 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, float16 d.
 * value = d · scale[sub-block of 16] · (q − 32), in two halves of 128 values.
 */
function decodeQ6_K(raw: Uint8Array, out: Float32Array): void {
  const view = viewOf(raw);
  for (let at = 0, y = 0; at < raw.length; at += 210, y += SUPER_BLOCK) {
    const d = view.getFloat16(at + 208, true);
    for (let half = 0; half < 2; half++) {
      const lows = at + half * 64;
      const highs = at + 128 + half * 32;
      for (let quarter = 0; quarter < 4; quarter++) {
        for (let i = 0; i < 32; i++) {
          const low = ((raw[lows + (quarter & 1) * 32 + i] ?? 0) >> ((quarter >> 1) * 4)) & 15;
          const high = ((raw[highs + i] ?? 0) >> (quarter * 2)) & 3;
          const scale = d * view.getInt8(at + 192 + half * 8 + quarter * 2 + (i >> 4));
          out[y + half * 128 + quarter * 32 + i] = scale * ((low | (high << 4)) - 32);
        }
      }
    }
  }
}

function viewOf(raw: Uint8Array): DataView {
  return new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
}
