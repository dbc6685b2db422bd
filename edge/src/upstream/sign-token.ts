import type { ServiceTokenClaims } from "@fathom/shared";
import { sign } from "hono/jwt";

/** Seconds a token is valid: long enough for a clock that is a little off, short enough to be worthless when it leaks. */
const LIFETIME_SECONDS = 60;

/** A token with which a GPU service accepts one request, once, with the body that it names (HS256). */
export async function signServiceToken(
  secret: string,
  request: Omit<ServiceTokenClaims, "iss" | "iat" | "exp">,
): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  const claims: ServiceTokenClaims = { iss: "fathom-edge", ...request, iat: now, exp: now + LIFETIME_SECONDS };
  return await sign(claims, await hmacKey(secret), "HS256");
}

/** The secret as a key. As raw bytes, as the service reads it: a secret that looks like PEM is still a secret. */
export async function hmacKey(secret: string): Promise<CryptoKey> {
  return await crypto.subtle.importKey(
    "raw",
    new TextEncoder().encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign", "verify"],
  );
}
