const RANDOM_BYTES = 12;
const LATEST = 2 ** 48 - 1;

/**
 * A name that nobody guesses (96 random bits). Later names sort before earlier ones, so that a listing of R2, which is in
 * the order of the names, begins with the newest.
 */
export function newObjectId(prefix: "file-" | "batch_", now: number): string {
  const age = (LATEST - now).toString(16).padStart(12, "0");
  return prefix + age + crypto.getRandomValues(new Uint8Array(RANDOM_BYTES)).toHex();
}

/** Whether a text may be such a name: others are looked up nowhere. */
export function isObjectId(prefix: "file-" | "batch_", text: string): boolean {
  return text.startsWith(prefix) && /^[0-9a-f]{36}$/.test(text.slice(prefix.length));
}
