import fc from "fast-check";
import { expect, test } from "vitest";
import { StopMatcher } from "./stop-matcher.ts";

/** Reads unit by unit and looks at the whole text after each: the definition, without any cleverness. */
function naive(text: string, stops: readonly string[]): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const seen = text.slice(0, end);
    const completed = stops.filter((stop) => seen.endsWith(stop));
    if (completed.length > 0) {
      const longest = Math.max(...completed.map((stop) => stop.length));
      return { text: text.slice(0, end - longest), stopped: true };
    }
  }
  return { text, stopped: false };
}

function run(pieces: readonly string[], stops: readonly string[]): { text: string; stopped: boolean; sent: string[] } {
  const matcher = new StopMatcher(stops);
  const sent: string[] = [];
  for (const piece of pieces) {
    const result = matcher.push(piece);
    sent.push(result.text);
    if (result.stopped) return { text: sent.join(""), stopped: true, sent };
  }
  sent.push(matcher.end());
  return { text: sent.join(""), stopped: false, sent };
}

// A small alphabet, so that matches, near matches and overlaps are frequent.
const text = fc.string({ unit: fc.constantFrom("a", "b", "\n", "é", "😀"), maxLength: 30 });
const stop = fc.string({ unit: fc.constantFrom("a", "b", "\n", "é", "😀"), minLength: 1, maxLength: 5 });

test("however the text is cut into pieces, it ends where reading unit by unit says", () => {
  fc.assert(
    fc.property(fc.array(text, { maxLength: 8 }), fc.array(stop, { maxLength: 4 }), (pieces, stops) => {
      const { text: got, stopped } = run(pieces, stops);
      expect({ text: got, stopped }).toEqual(naive(pieces.join(""), stops));
    }),
    { numRuns: 2000 },
  );
});

test("what was sent is never part of a match that follows", () => {
  fc.assert(
    fc.property(fc.array(text, { maxLength: 8 }), fc.array(stop, { minLength: 1, maxLength: 4 }), (pieces, stops) => {
      const { sent } = run(pieces, stops);
      for (let i = 1; i <= sent.length; i++) {
        expect(naive(pieces.join(""), stops).text.startsWith(sent.slice(0, i).join(""))).toBe(true);
      }
    }),
  );
});

test("a stop string spread over pieces is held back and cut", () => {
  expect(run(["Hello", " wor", "ld\n", "\nUser", ": hi"], ["\n\nUser:"])).toEqual({
    text: "Hello world",
    stopped: true,
    sent: ["Hello", " wor", "ld", "", ""],
  });
});

test("held text is sent when it turns out not to be a stop string", () => {
  expect(run(["a#", "#b"], ["###"]).sent).toEqual(["a", "##b", ""]);
  expect(run(["a#", "#"], ["###"]).sent).toEqual(["a", "", "##"]);
});

test("without stop strings the text passes through", () => {
  expect(run(["a", "", "b"], []).sent).toEqual(["a", "", "b", ""]);
});

test("a lone surrogate as stop string never cuts a character in two", () => {
  expect(run(["😀"], ["\ude00"])).toMatchObject({ text: "😀", stopped: false });
});

test("an empty stop string is refused", () => {
  expect(() => new StopMatcher([""])).toThrow(RangeError);
});
