import { Presets, SingleBar } from "cli-progress";

/** A progress bar on stderr; nothing at all where the output is not a terminal. */
export class ProgressBar {
  readonly #bar: SingleBar | undefined;
  #label = "";

  constructor() {
    if (!process.stdout.isTTY || !process.stderr.isTTY) return;
    this.#bar = new SingleBar(
      { format: "{label} {bar} {percentage}% | {eta_formatted} left", stream: process.stderr, hideCursor: true },
      Presets.shades_classic,
    );
  }

  /** Shows `done` of `total`; a new label finishes the line and starts another. */
  update(label: string, done: number, total: number): void {
    if (label !== this.#label) {
      this.#bar?.stop();
      this.#bar?.start(total, done, { label });
      this.#label = label;
      return;
    }
    this.#bar?.update(done);
  }

  /** Ends the line and gives the cursor back. */
  stop(): void {
    this.#bar?.stop();
  }
}
