import {
  ApiError,
  type ExitPolicyName,
  type ExitSet,
  exitsBetween,
  type FathomRequest,
  fullDepth,
  requireExit,
  type VirtualModel,
} from "@fathom/shared";
import { layerRange, type Plan } from "./plan.ts";

/** The name that every checkpoint answers to. */
export const MODEL_ALIAS = "fathom";

/** Endings of names that say how deep, for clients that can only name a model. */
const STYLES = ["fast", "balanced", "best", "confidence", "speculative"] as const;
type Style = (typeof STYLES)[number];

/** What a model's name says. */
export interface ModelName {
  /** A checkpoint's id, or the alias. */
  base: string;
  /** What follows it: `@18`, `-fast`; undefined when the name is the base alone. */
  choice: { kind: "depth"; text: string } | { kind: Style } | undefined;
}

/**
 * Takes a model's name apart: `fathom`, `fathom@18`, `fathom-fast`, and the same after a checkpoint's own id. A checkpoint
 * that is really called so comes first. Pure.
 * @param ids the checkpoints that are served
 * @returns undefined when the name stands for none of them
 */
export function parseModelName(name: string, ids: readonly string[]): ModelName | undefined {
  const bases = [MODEL_ALIAS, ...ids];
  if (bases.includes(name)) return { base: name, choice: undefined };
  const at = name.lastIndexOf("@");
  if (at > 0 && bases.includes(name.slice(0, at))) {
    return { base: name.slice(0, at), choice: { kind: "depth", text: name.slice(at + 1) } };
  }
  for (const kind of STYLES) {
    const base = name.slice(0, -kind.length - 1);
    if (name === `${base}-${kind}` && bases.includes(base)) return { base, choice: { kind } };
  }
  return undefined;
}

/** The part of the depth dial that a name sets. */
type Dial = Pick<VirtualModel, "depth" | "max_depth" | "exit">;

/**
 * What a name's choice means on a checkpoint under a plan. `fast` and `best` are the plan's shallowest and deepest exit;
 * `balanced` leaves the choice to the policy, up to the (upper) middle one. Pure.
 * @param exits exits of the checkpoint, ascending
 * @throws ApiError `invalid_depth` when the name asks for a depth without an exit; it names the exits.
 */
export function dialOf({ choice }: ModelName, exits: ExitSet, plan: Plan): Dial {
  if (choice === undefined) return {};
  const { min, max } = layerRange(plan, fullDepth(exits));
  const allowed = exitsBetween(exits, min, max);
  switch (choice.kind) {
    case "depth": {
      // Digits only: Number() would also read '0x12', '1e1' and ' 12'.
      const depth = /^[1-9]\d{0,3}$/.test(choice.text) ? Number(choice.text) : Number.NaN;
      if (!Number.isNaN(depth)) return { depth: requireExit(exits, depth, "model") };
      const message = `'model': '@${choice.text}' is not a depth; exits are ${exits.join(", ")}`;
      throw new ApiError("invalid_depth", message, { param: "model" });
    }
    case "fast":
      return only("depth", allowed[0]);
    case "balanced":
      return only("max_depth", allowed[allowed.length >> 1]);
    case "best":
      return only("depth", allowed.at(-1));
    case "confidence":
    case "speculative":
      return { exit: choice.kind };
    default:
      return choice satisfies never;
  }
}

/** A plan that reaches no exit sets nothing: the depth policy says why there is no offer. */
function only(field: "depth" | "max_depth", depth: number | undefined): Dial {
  return depth === undefined ? {} : { [field]: depth };
}

/**
 * Adds what the model's name sets to the request's own wish.
 * @returns undefined when neither asks for anything
 * @throws ApiError `invalid_request` when they contradict each other; it names both.
 */
export function mergeDial(name: string, dial: Dial, wish: FathomRequest | undefined): FathomRequest | undefined {
  const { depth, max_depth: most, exit } = dial;
  if (wish === undefined) return Object.keys(dial).length === 0 ? undefined : dial;
  if (depth !== undefined) {
    if (wish.depth !== undefined && wish.depth !== depth) throw contradiction(name, `depth ${depth}`, "depth", wish);
    if (depth < (wish.min_depth ?? 0)) throw contradiction(name, `depth ${depth}`, "min_depth", wish);
    if (depth > (wish.max_depth ?? depth)) throw contradiction(name, `depth ${depth}`, "max_depth", wish);
  }
  if (most !== undefined) {
    const said = `at most depth ${most}`;
    if (typeof wish.depth === "number" && wish.depth > most) throw contradiction(name, said, "depth", wish);
    if ((wish.min_depth ?? 0) > most) throw contradiction(name, said, "min_depth", wish);
  }
  if (exit !== undefined && (wish.exit ?? exit) !== exit) throw contradiction(name, `exit "${exit}"`, "exit", wish);
  const bound = most === undefined ? {} : { max_depth: Math.min(most, wish.max_depth ?? most) };
  return { ...wish, ...dial, ...bound };
}

/** A name that a plan's customers may use, with what it stands for. */
export interface VirtualName {
  id: string;
  dial: Dial;
}

/**
 * The virtual names over a base that a plan may use, shallow to deep. Names that would be refused are left out, and so are
 * exit policies where there is one exit only and nothing to decide.
 */
export function virtualNames(base: string, exits: ExitSet, plan: Plan): VirtualName[] {
  const { min, max } = layerRange(plan, fullDepth(exits));
  const allowed = exitsBetween(exits, min, max);
  if (allowed.length === 0) return [];
  const hasChoice = exits.some((exit) => exit < (allowed.at(-1) ?? 0));
  const styles = STYLES.filter((kind) => hasChoice || !isExitPolicy(kind));
  return [
    ...(base === MODEL_ALIAS ? [{ id: base, dial: {} }] : []),
    ...allowed.map((depth) => ({ id: `${base}@${depth}`, dial: { depth } })),
    ...styles.map((kind) => ({ id: `${base}-${kind}`, dial: dialOf({ base, choice: { kind } }, exits, plan) })),
  ];
}

function isExitPolicy(kind: Style): kind is Style & ExitPolicyName {
  return kind === "confidence" || kind === "speculative";
}

function contradiction(name: string, said: string, field: keyof FathomRequest, wish: FathomRequest): ApiError {
  const param = `fathom.${field}`;
  const message = `'${param}': ${JSON.stringify(wish[field])} contradicts the model '${name}', which says ${said}`;
  return new ApiError("invalid_request", message, { param });
}
