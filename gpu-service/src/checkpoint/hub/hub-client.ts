import { downloadFile, HubApiError, listFiles, modelInfo } from "@huggingface/hub";
import { CheckpointError } from "../checkpoint-error.ts";

/** Time for the hub to answer a question about a model, milliseconds. Downloads may take as long as they take. */
const ANSWER_TIMEOUT_MS = 30_000;

export interface HubOptions {
  /** Default: the variable HF_ENDPOINT, else https://huggingface.co. */
  hubUrl?: string;
  /** For private and gated models; default: the variable HF_TOKEN. */
  accessToken?: string;
  signal?: AbortSignal;
}

/** One file of a model on the hub, with what proves that a copy is right. */
export interface HubFile {
  path: string;
  bytes: number;
  /** Large files carry their SHA-256, small ones git's object id (SHA-1). */
  checksum: { algorithm: "sha256" | "git"; hex: string };
}

/** A model at one commit, so that all files belong together. */
export interface HubModel {
  repo: string;
  commit: string;
  files: HubFile[];
}

/** The hub does not give the model. */
export class HubError extends CheckpointError {
  /** The next attempt may succeed: the hub did not answer, or not as the hub does. */
  readonly retryable: boolean;

  constructor(file: string, reason: string, options: { retryable: boolean; cause?: unknown }) {
    super(file, reason, options);
    this.retryable = options.retryable;
  }
}

/** Looks a model up. @throws HubError when the hub does not answer, has no such model or asks for a token. */
export async function findModel(repo: string, revision: string | undefined, options: HubOptions): Promise<HubModel> {
  const common = connection(options, ANSWER_TIMEOUT_MS);
  try {
    const info = await modelInfo({
      ...common,
      name: repo,
      additionalFields: ["sha"],
      ...(revision === undefined ? {} : { revision }),
    });
    const files: HubFile[] = [];
    for await (const entry of listFiles({ ...common, repo, revision: info.sha, recursive: true })) {
      const checksum = entry.lfs
        ? { algorithm: "sha256" as const, hex: entry.lfs.oid }
        : { algorithm: "git" as const, hex: entry.oid ?? "" };
      if (entry.type === "file") files.push({ path: entry.path, bytes: entry.size, checksum });
    }
    return { repo, commit: info.sha, files };
  } catch (error) {
    throw translate(error, repo, common.hubUrl, options.signal);
  }
}

/**
 * Streams a file from byte `from` on.
 * @throws HubError when the connection fails, also while the stream is read.
 */
export async function* streamFile(
  model: HubModel,
  file: HubFile,
  from: number,
  options: HubOptions,
): AsyncGenerator<Uint8Array> {
  const common = connection(options);
  try {
    // The plain HTTP protocol: a byte range is all that resuming takes.
    const blob = await downloadFile({
      ...common,
      repo: model.repo,
      revision: model.commit,
      path: file.path,
      xet: false,
    });
    if (!blob) throw new CheckpointError(file.path, `is missing in ${model.repo}`);
    for await (const chunk of from > 0 ? blob.slice(from).stream() : blob.stream()) yield chunk;
  } catch (error) {
    throw translate(error, model.repo, common.hubUrl, options.signal);
  }
}

function connection(options: HubOptions, timeoutMs?: number) {
  const hubUrl = (options.hubUrl || process.env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
  const accessToken = options.accessToken ?? process.env.HF_TOKEN;
  const guarded: typeof fetch = async (input, init) => {
    const signals = [options.signal, timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs)];
    const response = await fetch(input, { ...init, signal: AbortSignal.any(signals.filter((s) => s !== undefined)) });
    // A server that ignores the range would send the file from its beginning.
    if (new Headers(init?.headers).has("range") && response.ok && response.status !== 206) {
      await response.body?.cancel();
      throw new TypeError("the server does not support resuming");
    }
    return response;
  };
  return { hubUrl, fetch: guarded, ...(accessToken ? { accessToken } : {}) };
}

function translate(error: unknown, repo: string, hubUrl: string, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof CheckpointError) return error;
  if (error instanceof HubApiError) {
    const { statusCode } = error;
    if (statusCode === 404) {
      return new HubError(repo, `there is no such model on ${hubUrl}`, { retryable: false, cause: error });
    }
    if (statusCode === 401 || statusCode === 403) {
      const reason = `does not exist on ${hubUrl} or asks for a token: set HF_TOKEN`;
      return new HubError(repo, reason, { retryable: false, cause: error });
    }
    return new HubError(repo, `${hubUrl} answers with status ${statusCode}`, { retryable: true, cause: error });
  }
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new HubError(repo, `${hubUrl} cannot be reached (${reason})`, { retryable: true, cause: error });
}
