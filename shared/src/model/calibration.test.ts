import { expect, test } from "vitest";
import { Calibration } from "./calibration.ts";

const evidence: Calibration = {
  version: 1,
  method: "learn-then-test, betting, fitted",
  created: "2026-01-01T00:00:00.000Z",
  agreement: 0.98,
  confidence: 0.95,
  certified: true,
  p_value: 0.01,
  weights_sha256: "0".repeat(64),
  exits: [
    { depth: 15, threshold: 0.9, tokens: 60, agreement: 0.99 },
    { depth: 30, tokens: 40, agreement: 1 },
  ],
  measured: {
    agreement: 0.99,
    agreement_interval: [0.985, 0.995],
    token_agreement: 0.99,
    mean_layers: 21,
    layers_share: 0.7,
  },
  prompts: { fit: 100, certify: 200, left_out: 0 },
  tokens: { fit: 50, certify: 100 },
  max_tokens: 128,
  template: "chat",
  data: [{ file: "questions.jsonl", sha256: "1".repeat(64), prompts: 300 }],
  seed: 42,
};

test("evidence survives JSON", () => {
  expect(Calibration.parse(JSON.parse(JSON.stringify(evidence)))).toEqual(evidence);
});

test.each([
  ["an agreement of one", { agreement: 1 }, "agreement"],
  ["a confidence of zero", { confidence: 0 }, "confidence"],
  ["full depth alone", { exits: evidence.exits.slice(1) }, "exits"],
  ["thresholds without a certificate", { certified: false }, "exits"],
  ["a hash that is none", { weights_sha256: "x" }, "weights_sha256"],
  ["a date that is none", { created: "yesterday" }, "created"],
  ["no data", { data: [] }, "data"],
  ["a later version", { version: 2 }, "version"],
])("refuses %s", (_, changes, path) => {
  const result = Calibration.safeParse({ ...evidence, ...changes });
  expect(result.error?.issues[0]?.path.join(".")).toBe(path);
});
