import fc from "fast-check";
import { expect, test } from "vitest";
import { SseFramer } from "./sse-framer.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Pushes the bytes in pieces that end at the given places. */
function frame(bytes: Uint8Array, cuts: readonly number[]): { passed: string; data: string[] } {
  const framer = new SseFramer();
  const data: string[] = [];
  let passed = "";
  let from = 0;
  for (const to of [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
    const frames = framer.push(bytes.subarray(from, to));
    passed += decoder.decode(frames.bytes);
    data.push(...frames.data);
    from = to;
  }
  return { passed, data };
}

const anyCuts = fc.array(fc.nat(), { maxLength: 20 });
const separator = fc.constantFrom("\n\n", "\r\n\r\n");

test("however the bytes are cut, the events are the same", () => {
  const events = fc.array(fc.tuple(fc.json(), separator), { maxLength: 8 });
  fc.assert(
    fc.property(events, anyCuts, (list, cuts) => {
      const text = list.map(([json, end]) => `data: ${json}${end}`).join("");
      expect(frame(encoder.encode(text), cuts)).toEqual({ passed: text, data: list.map(([json]) => json) });
    }),
  );
});

test("an event that is not complete is held back", () => {
  fc.assert(
    fc.property(anyCuts, (cuts) => {
      const bytes = encoder.encode('data: {"t":"Blätter"}\n\ndata: {"t":"ab');
      expect(frame(bytes, cuts)).toEqual({ passed: 'data: {"t":"Blätter"}\n\n', data: ['{"t":"Blätter"}'] });
    }),
  );
});

test("comments and fields other than data pass without data", () => {
  const text = ": waiting\n\nevent: x\nid: 1\n\ndata:a\ndata: b\n\n";
  expect(frame(encoder.encode(text), [])).toEqual({ passed: text, data: ["a\nb"] });
});

test("an event that does not end is an error", () => {
  const framer = new SseFramer();
  const chunk = new Uint8Array(1024 * 1024).fill(65);
  expect(() => {
    for (let i = 0; i < 6; i++) framer.push(chunk);
  }).toThrow(/does not end/);
});
