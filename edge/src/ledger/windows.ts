/** A calendar month `2026-11` or a day `2026-11-24`, UTC. */
export type Window = string;

export function monthOf(now: number): Window {
  return new Date(now).toISOString().slice(0, 7);
}

export function dayOf(now: number): Window {
  return new Date(now).toISOString().slice(0, 10);
}

/** Milliseconds until the month or the day of `now` is over. */
export function untilEnd(window: "month" | "day", now: number): number {
  const date = new Date(now);
  const [year, month, day] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()];
  return (window === "month" ? Date.UTC(year, month + 1) : Date.UTC(year, month, day + 1)) - now;
}
