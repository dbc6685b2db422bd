import { webcrypto } from "node:crypto";

/** The secret as a key for HS256. As raw bytes: hono would read a secret that looks like PEM as a public key. */
export async function hmacKey(secret: string): Promise<webcrypto.CryptoKey> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  return await webcrypto.subtle.importKey("raw", new TextEncoder().encode(secret), algorithm, false, [
    "sign",
    "verify",
  ]);
}
