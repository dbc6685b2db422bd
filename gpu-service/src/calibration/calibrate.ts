import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { type Calibration, type ExitSet, fullDepth, requireExit } from "@fathom/shared";
import { CheckpointError } from "../checkpoint/checkpoint-error.ts";
import { type Checkpoint, openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { updateManifest } from "../checkpoint/update-manifest.ts";
import { weightsHash } from "../checkpoint/weight-files.ts";
import { contextWithin } from "../engine/kv-layout.ts";
import { defaultKvMemory, loadEngine } from "../engine/load-engine.ts";
import type { Engine } from "../engine/types.ts";
import { randomStream, shuffled } from "../random/random-stream.ts";
import { TextModel } from "../text/text-model.ts";
import type { PromptTemplate } from "../train/data/encode-record.ts";
import { bootstrapInterval } from "./bootstrap.ts";
import { CalibrationError } from "./calibration-error.ts";
import type { RecordedAnswer, Thresholds } from "./exit-simulation.ts";
import { type Certificate, type Guarantee, learnThenTest, planPrompts } from "./learn-then-test.ts";
import { type PromptSet, readPrompts } from "./prompts.ts";
import { recordAnswers } from "./record-answers.ts";

const INTERVAL_LEVEL = 0.95;

export interface CalibrateOptions extends Guarantee {
  data: readonly string[];
  /** Prompts to use, drawn by the seed; default all. */
  prompts?: number;
  /** Longest continuation, tokens. */
  maxTokens: number;
  /** Exits that may get a threshold; default all. Full depth is always there. */
  exits?: readonly number[];
  /** Default: chat where the checkpoint has a chat format. */
  template?: PromptTemplate;
  /** Use records that `fathom train` may have learnt from. */
  all: boolean;
  seed: number;
  /** Prompts in work at the same time. */
  parallel: number;
}

export interface CalibrateHooks {
  signal: AbortSignal;
  onPrompt?: (done: number, total: number) => void;
  /** Default: `loadEngine`. */
  startEngine?: (dir: string, exits: ExitSet) => Promise<Engine>;
}

export interface CalibrateResult {
  thresholds: Thresholds;
  calibration: Calibration;
  certificate: Certificate;
}

/**
 * Chooses thresholds for the confidence exit on held-out prompts and writes them with their evidence into the checkpoint's
 * manifest, in place of earlier ones. Until the manifest is replaced at the very end, nothing in the folder changes.
 * @throws CheckpointError, TrainError, CalibrationError that name what cannot be used; the signal's reason.
 */
export async function calibrateCheckpoint(
  dir: string,
  options: CalibrateOptions,
  hooks: CalibrateHooks,
): Promise<CalibrateResult> {
  const checkpoint = await openCheckpoint(dir);
  await access(dir, constants.W_OK).catch((cause) => {
    throw new CheckpointError(dir, "cannot be written to, and thresholds are stored in its manifest", { cause });
  });
  const depths = chooseExits(checkpoint, options.exits);
  const text = await TextModel.load(dir);
  const template = options.template ?? (text?.hasChatTemplate ? "chat" : "alpaca");
  const { set, prompts } = await choosePrompts(checkpoint, text, template, options);

  hooks.signal.throwIfAborted();
  const engine = await (hooks.startEngine ?? startEngine)(dir, depths);
  let answers: RecordedAnswer[];
  try {
    answers = await recordAnswers(engine, prompts, {
      maxTokens: options.maxTokens,
      stopTokenIds: checkpoint.manifest.tokenizer.eos_token_ids,
      parallel: options.parallel,
      signal: hooks.signal,
      ...(hooks.onPrompt ? { onPrompt: hooks.onPrompt } : {}),
    });
  } finally {
    await engine.close();
  }
  const certificate = learnThenTest(answers, depths, options);
  const calibration: Calibration = {
    ...describeCertificate(certificate, answers, options),
    created: new Date().toISOString(),
    weights_sha256: weightsHash(checkpoint.manifest),
    prompts: { fit: certificate.plan.fit, certify: certificate.plan.certify, left_out: set.leftOut },
    max_tokens: options.maxTokens,
    ...(text ? { template } : {}),
    data: set.data,
  };
  const { thresholds } = certificate;
  hooks.signal.throwIfAborted();
  await updateManifest(checkpoint, { thresholds: { ...thresholds }, calibration });
  return { thresholds, calibration, certificate };
}

function chooseExits({ dir, manifest }: Checkpoint, wanted: readonly number[] | undefined): ExitSet {
  const { exits } = manifest;
  const full = fullDepth(exits);
  for (const depth of wanted ?? []) requireExit(exits, depth, "--exits");
  const chosen = wanted === undefined ? exits : exits.filter((depth) => depth === full || wanted.includes(depth));
  if (chosen.length > 1) return [...chosen];
  throw exits.length > 1
    ? new CalibrationError(
        `--exits: full depth has no threshold; name an exit before it: ${exits.slice(0, -1).join(", ")}`,
      )
    : new CheckpointError(dir, `has one exit only, at full depth ${full}: there is nothing to calibrate`);
}

/** The prompts to use, in the order that the seed gives them. */
async function choosePrompts(
  { manifest }: Checkpoint,
  text: TextModel | undefined,
  template: PromptTemplate,
  options: CalibrateOptions,
): Promise<{ set: PromptSet; prompts: number[][] }> {
  const { architecture, exits } = manifest;
  const contextLength = contextWithin(defaultKvMemory(), architecture, fullDepth(exits));
  const maxLength = contextLength - options.maxTokens;
  if (maxLength < 1) {
    throw new CalibrationError(
      `--max-tokens ${options.maxTokens} leaves no room in the context of ${contextLength} tokens`,
    );
  }
  const vocabulary = architecture.vocab_size;
  const set = await readPrompts(options.data, { text, template, all: options.all, maxLength, vocabulary });
  const { prompts: wanted = set.prompts.length } = options;
  if (wanted > set.prompts.length) {
    const more = options.all ? "" : " (of records with responses only the held-out ones; --all takes every one)";
    throw new CalibrationError(`--prompts ${wanted}: the data hold ${set.prompts.length} usable prompts${more}`);
  }
  const prompts = shuffled(set.prompts, randomStream(options.seed)).slice(0, wanted);
  planPrompts(prompts.length, options);
  return { set, prompts };
}

function describeCertificate(
  { plan, thresholds, certified, pValue, measured }: Certificate,
  answers: readonly RecordedAnswer[],
  { agreement, confidence, test, seed }: CalibrateOptions,
) {
  const { losses, tokens, differing, layers, exits } = measured;
  const full = exits.at(-1)?.depth ?? 1;
  const [low, high] = bootstrapInterval(losses, INTERVAL_LEVEL, seed);
  const fitted = answers.slice(0, plan.fit).reduce((sum, answer) => sum + answer.tokens, 0);
  return {
    version: 1 as const,
    method: `learn-then-test, ${test}, ${plan.family}`,
    agreement,
    confidence,
    certified,
    p_value: certified ? pValue : null,
    exits: exits.map(({ depth, tokens: count, differing: wrong }) => ({
      depth,
      ...(thresholds[depth] === undefined ? {} : { threshold: thresholds[depth] }),
      tokens: count,
      agreement: count === 0 ? null : 1 - wrong / count,
    })),
    measured: {
      agreement: 1 - losses.reduce((sum, loss) => sum + loss, 0) / losses.length,
      agreement_interval: [1 - high, 1 - low] satisfies [number, number] as [number, number],
      token_agreement: 1 - differing / tokens,
      mean_layers: layers / tokens,
      layers_share: layers / tokens / full,
    },
    tokens: { fit: fitted, certify: tokens },
    seed,
  };
}

function startEngine(dir: string, exits: ExitSet): Promise<Engine> {
  return loadEngine(dir, { exits, verify: false });
}
