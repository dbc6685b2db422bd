import { isIPv4 } from "node:net";
import { ApiError } from "@fathom/shared";
import type { MiddlewareHandler } from "hono";

/** Whether a host name or address means this machine and no other. */
export function isLoopback(host: string): boolean {
  const name = host.toLowerCase().replace(/^\[(.*)\]$/, "$1");
  return name === "localhost" || name === "::1" || (isIPv4(name) && name.startsWith("127."));
}

/** Refuses requests that name another host: a web page can point its own name at this machine (DNS rebinding). */
export const requireLoopbackHost: MiddlewareHandler = async (c, next) => {
  if (!isLoopback(new URL(c.req.url).hostname)) {
    throw new ApiError("permission_denied", "This service answers only requests to localhost.");
  }
  await next();
};
