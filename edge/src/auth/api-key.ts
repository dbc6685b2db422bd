/** `fk_<public id>_<secret>`: the id finds the record, the secret proves the right to it. Both are hexadecimal. */
const API_KEY = /^fk_([0-9a-f]{16})_([0-9a-f]{64})$/;

export interface ApiKey {
  publicId: string;
  secret: string;
}

/** The parts of a key, or undefined when the text is not one. */
export function parseApiKey(text: string): ApiKey | undefined {
  const [, publicId, secret] = API_KEY.exec(text) ?? [];
  return publicId === undefined || secret === undefined ? undefined : { publicId, secret };
}

export function formatApiKey({ publicId, secret }: ApiKey): string {
  return `fk_${publicId}_${secret}`;
}

/** A text that a client chose, without the secrets of the keys that may stand in it. */
export function withoutSecrets(text: string): string {
  return text.replace(/(fk_[0-9a-f]{16})_[0-9a-f]+/gi, "$1_…");
}

/** A new key: 64 bits of id, 256 bits of secret. */
export function createApiKey(): ApiKey {
  return { publicId: randomHex(8), secret: randomHex(32) };
}

/** SHA-256 of a text. One round is enough: the secrets are random, not chosen. */
export async function sha256(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

/** Whether a secret has the given SHA-256. Takes the same time wherever they differ. */
export async function matchesDigest(secret: string, digest: Uint8Array): Promise<boolean> {
  return crypto.subtle.timingSafeEqual(await sha256(secret), digest);
}

function randomHex(bytes: number): string {
  return crypto.getRandomValues(new Uint8Array(bytes)).toHex();
}
