import { bytesAt, type Manifest, parametersAt } from "@fathom/shared";
import type { Command } from "commander";
import { guaranteeText } from "./calibrate.ts";

interface InspectOptions {
  json?: boolean;
  verify: boolean;
}

/** Adds `fathom inspect`. */
export function registerInspectCommand(program: Command): void {
  program
    .command("inspect")
    .description("check a nested checkpoint and print what it holds")
    .argument("<dir>", "checkpoint folder")
    .option("--json", "print JSON")
    .option("--no-verify", "compare sizes only, not every file's SHA-256")
    .addHelpText("after", "\nExample:\n  $ fathom inspect models/smollm2-135m\n")
    .action(inspect);
}

async function inspect(dir: string, options: InspectOptions): Promise<void> {
  const { openCheckpoint } = await import("../checkpoint/open-checkpoint.ts");
  const { weightsHash } = await import("../checkpoint/weight-files.ts");
  const { manifest } = await openCheckpoint(dir, { verify: options.verify });
  const report = describe(manifest, options.verify, weightsHash(manifest));
  process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : toText(report));
}

function describe(manifest: Manifest, verified: boolean, weights: string) {
  const { name, architecture, quantization, tokenizer, thresholds, calibration, profile, provenance, files } = manifest;
  return {
    name,
    architecture,
    exits: manifest.exits.map((depth) => ({
      depth,
      parameters: parametersAt(architecture, depth, manifest.exit_heads),
      bytes: bytesAt(manifest, depth),
    })),
    quantization,
    tokenizer: { ...tokenizer, file: files.some(({ path }) => path === "tokenizer.json") ? "tokenizer.json" : null },
    thresholds: thresholds ?? null,
    calibration: calibration ? { ...calibration, valid: calibration.weights_sha256 === weights } : null,
    profile: profile ?? null,
    provenance,
    files: { count: files.length, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0) },
    verification: verified ? ("sha256" as const) : ("size" as const),
  };
}

type Report = ReturnType<typeof describe>;

function toText(report: Report): string {
  const { architecture: a, quantization: q, provenance } = report;
  const scaling = a.rope.llama3 ? `, llama3 scaling ×${a.rope.llama3.factor}` : "";
  const rows: [string, string][] = [
    ["model", report.name],
    ["architecture", `${a.type}, ${a.layers} layers, hidden ${a.hidden_size}, MLP ${a.intermediate_size}`],
    ["attention", `${a.heads} heads, ${a.kv_heads} K/V heads of ${a.head_dim}, RoPE ${a.rope.theta}${scaling}`],
    ["vocabulary", `${a.vocab_size} tokens, ${report.tokenizer.file ?? "no tokenizer"}`],
    ["context", `${a.context_length} tokens`],
    ["weights", `layers ${q.layers}, embedding ${q.embedding}, head ${a.tied ? "tied" : q.head}`],
    ["source", printable(provenance.source)],
    ["licence", printable(provenance.license ?? "not stated")],
    ["created", printable(provenance.created)],
    ["files", `${report.files.count}, ${megabytes(report.files.bytes)} MB`],
    ["verified", report.verification === "sha256" ? "every file has the right SHA-256" : "sizes only"],
  ];
  if (report.thresholds) rows.push(["thresholds", thresholdsText(report.thresholds)], ["guarantee", guarantee(report)]);
  const exits = report.exits.map(
    ({ depth, parameters, bytes }) =>
      `${String(depth).padStart(6)}  ${(parameters / 1e6).toFixed(1).padStart(12)}  ${megabytes(bytes).padStart(10)}`,
  );
  const head = rows.map(([label, value]) => `${label.padEnd(13)}${value}`);
  return `${[...head, "", "  exit  parameters M          MB", ...exits].join("\n")}\n`;
}

function thresholdsText(thresholds: Record<string, number>): string {
  const entries = Object.entries(thresholds).map(([depth, threshold]) => `${printable(depth)}: ${threshold}`);
  return entries.length > 0 ? entries.join(", ") : "none, every token goes to full depth";
}

function guarantee({ calibration }: Report): string {
  if (!calibration) return "none: set by hand";
  if (!calibration.valid) return "none: calibrated on other weights";
  if (!calibration.certified) return `none: an agreement of ${calibration.agreement} could not be certified`;
  const { measured, prompts } = calibration;
  const figures = `${measured.agreement.toFixed(4)} at ${(100 * measured.layers_share).toFixed(0)}% of the layers`;
  return `${guaranteeText(calibration)}; measured ${figures} on ${prompts.certify} prompts`;
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

/** A manifest may come from anywhere: its texts must not steer the terminal. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, " ");
}
