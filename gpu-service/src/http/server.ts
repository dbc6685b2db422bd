import { createServer, type Server } from "node:http";
import { ApiError } from "@fathom/shared";
import { getRequestListener } from "@hono/node-server";
import type { Hono } from "hono";
import { errorResponse, toApiError } from "./errors.ts";

export interface ListenOptions {
  host: string;
  /** 0 lets the system choose a free one. */
  port: number;
  /** Told of connections that could not be accepted, such as for want of file descriptors. */
  onError: (error: Error) => void;
}

export interface HttpServer {
  /** Where it answers. */
  url: string;
  /** Stops listening; connections that are still busy after `graceMs` are cut. */
  close(graceMs: number): Promise<void>;
}

/**
 * Serves an app over HTTP.
 * @throws Error that says why the address cannot be used.
 */
export async function listen(app: Pick<Hono, "fetch">, { host, port, onError }: ListenOptions): Promise<HttpServer> {
  const server = createServer(getRequestListener(app.fetch, { hostname: host, errorHandler: onRequestError }));
  await new Promise<void>((resolve, reject) => {
    const refuse = (error: NodeJS.ErrnoException): void => reject(explainListenError(error, host, port));
    server.once("error", refuse);
    server.listen(port, host, () => {
      server.off("error", refuse);
      server.on("error", onError);
      resolve();
    });
  });
  const address = server.address();
  const actualPort = typeof address === "object" && address ? address.port : port;
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${actualPort}`,
    close: (graceMs) => close(server, graceMs),
  };
}

/** Requests that never reach the app: a Host header or a target that is not one. */
function onRequestError(error: unknown): Response {
  if (error instanceof Error && error.name === "RequestError") {
    return errorResponse(new ApiError("invalid_request", `The request is malformed: ${error.message}.`));
  }
  return errorResponse(toApiError(error));
}

function explainListenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  switch (error.code) {
    case "EADDRINUSE":
      return new Error(`port ${port} on ${host} is in use; choose another with --port`, { cause: error });
    case "EACCES":
      return new Error(`port ${port} on ${host} may not be used by this user`, { cause: error });
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return new Error(`host ${host} is not an address of this machine`, { cause: error });
    default:
      return new Error(`cannot listen on ${host}:${port}: ${error.message}`, { cause: error });
  }
}

async function close(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const cut = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearTimeout(cut);
}
