import { Presets, SingleBar } from "cli-progress";
import type { TrainListener } from "../train/run.ts";
import type { HeldOutScore } from "../train/trainer.ts";

/** Share of the newest step in the figures that the bar shows. */
const SMOOTHING = 0.05;

/** Shows a run: on a terminal a bar with smoothed losses, everywhere a line per evaluation. */
export class TrainProgress {
  #bar: SingleBar | undefined;
  #started = false;
  readonly #losses = new Map<number, number>();
  #speed = 0;

  readonly listener: TrainListener = {
    onData: ({ train, heldOut, truncated, dropped }) => {
      this.#print(`${train} records to train on, ${heldOut} held out, ${truncated} cut, ${dropped} left out`);
    },
    onStep: ({ step, steps, exits, tokensPerSecond }) => {
      for (const { depth, loss, kl } of exits) {
        this.#losses.set(depth, smooth(this.#losses.get(depth), kl ?? loss));
      }
      this.#speed = smooth(this.#speed || undefined, tokensPerSecond);
      const losses = [...this.#losses].sort(([x], [y]) => x - y).map(([d, loss]) => `${d}: ${loss.toFixed(2)}`);
      const figures = { losses: losses.join("  "), speed: this.#speed.toFixed(0) };
      if (!process.stdout.isTTY || !process.stderr.isTTY) return;
      if (!this.#started) {
        this.#bar = new SingleBar(
          {
            format: "{bar} {value}/{total} | {losses} | {speed} tok/s | {eta_formatted} left",
            stream: process.stderr,
            hideCursor: true,
            etaBuffer: 50,
          },
          Presets.shades_classic,
        );
        this.#bar.start(steps, step + 1, figures);
        this.#started = true;
      } else this.#bar?.update(step + 1, figures);
    },
    onEvaluation: (step, scores) => {
      if (scores.length > 0) this.#print(`step ${step}, held out: ${scores.map(describe).join("  ")}`);
    },
  };

  /** Ends the bar and gives the cursor back. */
  stop(): void {
    this.#bar?.stop();
    this.#started = false;
  }

  #print(line: string): void {
    this.stop();
    process.stdout.write(`${line}\n`);
  }
}

function describe({ depth, loss, agreement }: HeldOutScore): string {
  return `${depth}: ${loss.toFixed(3)} (${(100 * agreement).toFixed(0)}%)`;
}

function smooth(average: number | undefined, value: number): number {
  return average === undefined ? value : average + SMOOTHING * (value - average);
}
