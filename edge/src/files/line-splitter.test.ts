import fc from "fast-check";
import { expect, test } from "vitest";
import { LineSplitter } from "./line-splitter.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

test("however the bytes are cut, the lines are the same and lie where they say", () => {
  const anyLines = fc.array(fc.string({ unit: "grapheme", maxLength: 12 }).map((text) => text.replaceAll("\n", "")));
  fc.assert(
    fc.property(anyLines, fc.array(fc.nat(), { maxLength: 10 }), (texts, cuts) => {
      const bytes = encoder.encode(texts.map((text) => `${text}\n`).join(""));
      const splitter = new LineSplitter(1000);
      const lines = [];
      let from = 0;
      for (const to of [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
        lines.push(...splitter.push(bytes.slice(from, to)));
        from = to;
      }
      lines.push(...splitter.end());
      expect(lines.map((line) => decoder.decode(line.bytes))).toEqual(texts.map((text) => text.replace("\uFEFF", "")));
      lines.forEach(({ number, offset, bytes: own }, i) => {
        expect(number).toBe(i + 1);
        expect(bytes.slice(offset, offset + own.length)).toEqual(own);
      });
    }),
  );
});

test("a line that does not end is an error, not a memory", () => {
  const splitter = new LineSplitter(10);
  splitter.push(new Uint8Array(10));
  expect(() => splitter.push(new Uint8Array(1))).toThrow("line 1 is longer than 10 bytes");
});
