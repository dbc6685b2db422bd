import type { ServiceTokenClaims } from "@fathom/shared";
import { sign } from "hono/jwt";

/** Seconds a token is valid: long enough for a clock that is a little off, short enough to be worthless when it leaks. */
const LIFETIME_SECONDS = 60;

/** A token with which a GPU service accepts one request (HS256); `jti` is the request's id. */
export async function signServiceToken(
  secret: string,
  request: Omit<ServiceTokenClaims, "iss" | "exp">,
): Promise<string> {
  const claims: ServiceTokenClaims = {
    iss: "fathom-edge",
    ...request,
    exp: Math.floor(Date.now() / 1000) + LIFETIME_SECONDS,
  };
  // As raw bytes, as the service reads it: a secret that looks like PEM is still a secret.
  const key = await crypto.subtle.importKey(
    "raw",
    new TextEncoder().encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  return await sign(claims, key, "HS256");
}
