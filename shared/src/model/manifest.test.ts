import { expect, test } from "vitest";
import { type Architecture, bytesAt, Manifest, parametersAt, tensorShapes } from "./manifest.ts";

/** SmolLM2-135M's published architecture. */
const smollm2: Architecture = {
  type: "llama",
  hidden_size: 576,
  intermediate_size: 1536,
  layers: 30,
  heads: 9,
  kv_heads: 3,
  head_dim: 64,
  vocab_size: 49152,
  rms_norm_eps: 1e-5,
  context_length: 8192,
  rope: { theta: 100_000 },
  tied: true,
};

function manifest(overrides: Record<string, unknown> = {}): unknown {
  return {
    format: "fathom-nested",
    version: 1,
    name: "smollm2",
    architecture: smollm2,
    exits: [15, 30],
    quantization: { layers: "fp32", embedding: "fp32", head: "fp32" },
    tokenizer: { bos_token_id: 1, eos_token_ids: [2] },
    tensors: {},
    files: [],
    provenance: { source: "here", created: "2026-01-01T00:00:00Z" },
    ...overrides,
  };
}

test("counts SmolLM2-135M's parameters as published: 134,515,008", () => {
  expect(parametersAt(smollm2, 30)).toBe(134_515_008);
  expect(parametersAt(smollm2, 30) - parametersAt(smollm2, 29)).toBe(3_540_096);
  expect(parametersAt({ ...smollm2, tied: false }, 30)).toBe(134_515_008 + 49152 * 576);
});

test("lists every tensor once, with its shape", () => {
  const shapes = tensorShapes(smollm2);
  expect(shapes.size).toBe(2 + 30 * 6);
  expect(shapes.get("layers.7.attn.qkv")).toEqual([576 + 2 * 192, 576]);
  expect(shapes.get("layers.29.mlp.gate_up")).toEqual([3072, 576]);
  expect(shapes.has("head")).toBe(false);
});

test("bytes at a depth add up what that depth runs", () => {
  const range = (bytes: number) => ({ file: "weights/00001.bin", offset: 0, bytes });
  const parsed = Manifest.parse(
    manifest({
      tensors: {
        embed: { format: "int8", shape: [4, 4], data: range(16), scales: range(8) },
        "layers.0.attn.o": { format: "int4", shape: [4, 4], data: range(8), scales: range(8), zero_points: range(4) },
        "layers.20.attn.o": { format: "fp32", shape: [4, 4], data: range(64) },
      },
    }),
  );
  expect([bytesAt(parsed, 15), bytesAt(parsed, 30)]).toEqual([44, 108]);
});

test.each([
  ["exits that stop short of the full depth", { exits: [15, 29] }, "exits"],
  ["exits out of order", { exits: [20, 15, 30] }, "exits"],
  ["heads that K/V heads do not divide", { architecture: { ...smollm2, kv_heads: 2 } }, "architecture.kv_heads"],
  ["another architecture", { architecture: { ...smollm2, type: "gpt2" } }, "architecture.type"],
  ["a path out of the folder", { files: [{ path: "../x", bytes: 1, sha256: "0".repeat(64) }] }, "files.0.path"],
  ["an absolute path", { files: [{ path: "/etc/passwd", bytes: 1, sha256: "0".repeat(64) }] }, "files.0.path"],
  ["a hash that is none", { files: [{ path: "a", bytes: 1, sha256: "x" }] }, "files.0.sha256"],
  ["an unknown format", { format: "other" }, "format"],
])("refuses %s", (_, overrides, path) => {
  const result = Manifest.safeParse(manifest(overrides));
  expect(result.error?.issues[0]?.path.join(".")).toBe(path);
});
