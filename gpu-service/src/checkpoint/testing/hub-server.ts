import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

export interface HubServer {
  url: string;
  /** Every request for a file's bytes, as `path` or `path from-to`. */
  downloads: string[];
  /** Bytes to send of the next answer for a path before the connection breaks. */
  breakAfter: Map<string, number>;
  /** Paths whose answers begin and never end. */
  stalled: Set<string>;
  /** Bytes served instead of the true ones, of the same length. */
  altered: Map<string, Uint8Array>;
  /** Answers everything with this status. */
  status: number | undefined;
  /** The last authorization header. */
  authorization: string | undefined;
  close(): Promise<void>;
}

/**
 * The endpoints of the Hugging Face hub that pulling a model uses: model info, file list, file bytes with ranges.
 * @param files by path; those that end in .safetensors or .gguf are listed as LFS files, the others as git blobs.
 */
export async function startHubServer(repo: string, files: Record<string, Uint8Array>): Promise<HubServer> {
  const state: Omit<HubServer, "url" | "close"> = {
    downloads: [],
    breakAfter: new Map(),
    stalled: new Set(),
    altered: new Map(),
    status: undefined,
    authorization: undefined,
  };
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://hub");
    state.authorization = request.headers.authorization;
    if (state.status !== undefined) return json(response, state.status, { error: "refused" });
    if (url.pathname.startsWith(`/api/models/${repo}/revision/`)) {
      return json(response, 200, { _id: "1", id: repo, sha: COMMIT, lastModified: "2025-01-01T00:00:00.000Z" });
    }
    if (url.pathname === `/api/models/${repo}/tree/${COMMIT}`) {
      return json(response, 200, Object.entries(files).map(listEntry));
    }
    const prefix = `/${repo}/resolve/${COMMIT}/`;
    const path = url.pathname.slice(prefix.length);
    const bytes = url.pathname.startsWith(prefix) ? files[path] : undefined;
    if (!bytes) return json(response, 404, { error: "Repository not found" });
    sendBytes(request, response, path, state.altered.get(path) ?? bytes, state);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return Object.assign(state, {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise<void>((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  });
}

function sendBytes(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  bytes: Uint8Array,
  state: Omit<HubServer, "url" | "close">,
): void {
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  const from = range ? Number(range[1]) : 0;
  const to = range ? Math.min(Number(range[2]), bytes.length - 1) : bytes.length - 1;
  const probe = range !== null && to === 0;
  if (!probe) state.downloads.push(range ? `${path} ${from}-${to}` : path);
  const part = bytes.subarray(from, to + 1);
  response.writeHead(range ? 206 : 200, {
    etag: `"${createHash("sha1").update(bytes).digest("hex")}"`,
    "content-length": part.length,
    ...(range ? { "content-range": `bytes ${from}-${to}/${bytes.length}` } : {}),
  });
  if (!probe && state.stalled.has(path)) {
    response.write(part.subarray(0, part.length >> 1));
    return;
  }
  const breakAfter = probe ? undefined : state.breakAfter.get(path);
  if (breakAfter === undefined) {
    response.end(part);
    return;
  }
  state.breakAfter.delete(path);
  response.write(part.subarray(0, breakAfter), () => response.destroy());
}

function listEntry([path, bytes]: [string, Uint8Array]) {
  const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const lfs = /\.(safetensors|gguf)$/.test(path) ? { lfs: { oid: sha256, size: bytes.length, pointerSize: 130 } } : {};
  return { type: "file", path, size: bytes.length, oid, ...lfs };
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}
