const PREFIX = "whsec_";

/** `whsec_` and 24 to 64 bytes in base64, as the Standard Webhooks specification has it. */
export function isWebhookSecret(text: string): boolean {
  const bytes = keyOf(text);
  return text.startsWith(PREFIX) && bytes !== undefined && bytes.length >= 24 && bytes.length <= 64;
}

/**
 * The `webhook-signature` header of the Standard Webhooks specification 1.0: HMAC-SHA256 of id, timestamp and body.
 * @param secret see `isWebhookSecret`
 * @param timestamp seconds since the epoch
 * @throws Error when the secret is not one.
 */
export async function signWebhook(secret: string, id: string, timestamp: number, body: string): Promise<string> {
  const bytes = keyOf(secret);
  if (!bytes) throw new Error("the webhook's secret is not base64");
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes, algorithm, false, ["sign"]);
  const content = new TextEncoder().encode(`${id}.${timestamp}.${body}`);
  return `v1,${new Uint8Array(await crypto.subtle.sign("HMAC", key, content)).toBase64()}`;
}

function keyOf(secret: string): Uint8Array | undefined {
  try {
    return Uint8Array.fromBase64(secret.slice(PREFIX.length));
  } catch {
    return undefined;
  }
}
