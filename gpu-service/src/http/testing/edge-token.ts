import { createHash, randomUUID } from "node:crypto";
import type { ServiceTokenClaims } from "@fathom/shared";
import { sign } from "hono/jwt";

/** The Authorization header with which the edge sends a body, as a new token each time. */
export async function edgeToken(
  secret: string,
  body: unknown,
  claims: Partial<ServiceTokenClaims> = {},
): Promise<{ authorization: string }> {
  const now = Math.floor(Date.now() / 1000);
  const whole: ServiceTokenClaims = {
    iss: "fathom-edge",
    jti: randomUUID(),
    max_depth: 8,
    body_sha256: createHash("sha256").update(JSON.stringify(body)).digest("hex"),
    iat: now,
    exp: now + 60,
    ...claims,
  };
  return { authorization: `Bearer ${await sign(whole, secret, "HS256")}` };
}
