import { ApiError } from "@fathom/shared";
import { decodeField, make } from "multipasta";
import type { FileDescription, FileStore } from "./file-store.ts";
import { newObjectId } from "./object-id.ts";
import type { ObjectWriter } from "./object-writer.ts";

/** What surrounds the file in the form. */
const FORM_BYTES = 16 * 1024;
const MAX_FILENAME = 256;

/**
 * Stores the file of a multipart form while it comes in, without holding it.
 * @param maxBytes longest file
 * @throws ApiError `invalid_request` that names the field, or `body_too_large`; nothing is stored then.
 */
export async function receiveFile(request: Request, store: FileStore, maxBytes: number): Promise<FileDescription> {
  const contentType = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data\s*;/i.test(contentType) || !request.body) {
    throw invalid("content-type", "must be multipart/form-data with 'file' and 'purpose'");
  }
  const tooLarge = new ApiError("body_too_large", `The file is larger than ${maxBytes} bytes.`);
  if (Number(request.headers.get("content-length") ?? 0) > maxBytes + FORM_BYTES) throw tooLarge;

  const now = Date.now();
  const id = newObjectId("file-", now);
  const fields = new Map<string, string>();
  let pending: Uint8Array[] = [];
  let filename: string | undefined;
  let problem: ApiError | undefined;
  const parser = make({
    headers: { "content-type": contentType },
    isFile: ({ name }) => name === "file",
    maxParts: 16,
    maxFieldSize: 1024,
    maxTotalSize: maxBytes + FORM_BYTES,
    onField: (info, value) => fields.set(info.name, decodeField(info, value)),
    onFile: (info) => {
      if (filename !== undefined) problem = invalid("file", "must be one file");
      filename = (info.filename ?? "file").slice(0, MAX_FILENAME);
      return (chunk) => {
        if (chunk) pending.push(chunk);
      };
    },
    onError: (error) => {
      const oversized = error._tag === "ReachedLimit" && error.limit === "MaxTotalSize";
      problem ??= oversized ? tooLarge : invalid("content-type", "the form cannot be read");
    },
    onDone: () => undefined,
  });

  let writer: ObjectWriter | undefined;
  try {
    for await (const chunk of request.body) {
      parser.write(chunk);
      if (problem) throw problem;
      if (filename === undefined) continue;
      writer ??= store.writer(id, { filename, purpose: "batch" }, now);
      for (const piece of pending) {
        if (writer.size + piece.length > maxBytes) throw tooLarge;
        await writer.write(piece);
      }
      pending = [];
    }
    parser.end();
    if (problem) throw problem;
    if (fields.get("purpose") !== "batch") throw invalid("purpose", 'must be "batch"');
    if (!writer || filename === undefined) throw invalid("file", "is missing");
    if (writer.size === 0) throw invalid("file", "is empty");
    await writer.close();
  } catch (error) {
    await writer?.abort();
    throw error;
  }
  const created_at = Math.floor(now / 1000);
  return { id, object: "file", bytes: writer.size, created_at, filename, purpose: "batch", status: "processed" };
}

function invalid(param: string, problem: string): ApiError {
  return new ApiError("invalid_request", `'${param}': ${problem}`, { param });
}
