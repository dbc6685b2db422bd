import fc from "fast-check";
import { expect, test } from "vitest";
import { arrayElements } from "./json-array.ts";

test("the elements of any array are its own, in order, however it is laid out", () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue()), fc.integer({ min: 0, max: 3 }), (values, indent) => {
      const text = JSON.stringify(values, undefined, indent);
      const elements = arrayElements(text);
      expect(elements.map((element) => JSON.parse(element.text))).toEqual(JSON.parse(text));
      const lines = text.split("\n");
      for (const element of elements) {
        const [first = ""] = element.text.split("\n");
        expect(lines[element.line - 1]).toContain(first);
      }
    }),
  );
});

test("a string may hold brackets, commas, quotes and escapes", () => {
  const values = ['a], "b"', "\\", '\\"', "[{"];
  expect(arrayElements(JSON.stringify(values)).map(({ text }) => JSON.parse(text))).toEqual(values);
});

test("a broken array is cut up to where it breaks", () => {
  expect(arrayElements('[1,\n{"a": }\n, 2')).toEqual([
    { text: "1", line: 1 },
    { text: '{"a": }', line: 2 },
    { text: "2", line: 3 },
  ]);
  expect(arrayElements("[1,\n]").map(({ line }) => line)).toEqual([1, 2]);
});
