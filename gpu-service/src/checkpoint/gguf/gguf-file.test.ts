import { join } from "node:path";
import { expect, test } from "vitest";
import { bytesOf } from "../float16.ts";
import { rowsPerChunk } from "../model-source.ts";
import { randomNumbers } from "../testing/random.ts";
import { temporaryFolder } from "../testing/temporary-folder.ts";
import { writeGguf } from "../testing/write-gguf.ts";
import { BLOCK_FORMATS } from "./block-formats.ts";
import { GgufFile } from "./gguf-file.ts";

const root = temporaryFolder();
const COLUMNS = 512;
/** Two chunks and a bit. */
const ROWS = 2 * rowsPerChunk(COLUMNS) + 3;

/** Random scales may be NaN, and which of its bit patterns comes out is the compiler's choice. */
function comparable(values: Float32Array): Uint8Array {
  return bytesOf(values.map((value) => (Number.isNaN(value) ? 0 : value)));
}

test.each([...BLOCK_FORMATS])("a file's tensor of type %i is read in chunks as if at once", async (type, format) => {
  const random = randomNumbers(type + 1);
  const values = ROWS * COLUMNS;
  const raw = Uint8Array.from({ length: (values / format.values) * format.bytes }, () => 256 * random());
  const expected = new Float32Array(values);
  format.decode(raw, expected);

  const path = join(root, `${format.name}.gguf`);
  const other = { shape: [3], type: 0, bytes: new Uint8Array(12) };
  writeGguf(path, {}, { before: other, tensor: { shape: [ROWS, COLUMNS], type, bytes: raw }, after: other });
  const file = await GgufFile.open(path);
  let chunks = 0;
  let done = 0;
  for await (const chunk of file.read("tensor", [ROWS, COLUMNS])) {
    const same = Buffer.compare(comparable(chunk), comparable(expected.subarray(done, done + chunk.length)));
    expect(same, `chunk ${chunks}`).toBe(0);
    done += chunk.length;
    chunks++;
  }
  await file.close();
  expect({ chunks, done }).toEqual({ chunks: 3, done: values });
});
