import { type Architecture, tensorShapes } from "@fathom/shared";
import { randomStream } from "../random/random-stream.ts";
import type { Parameters } from "./parameters.ts";

const DEVIATION = 0.02;

/** Random parameters as transformers initialises a LLaMA: matrices normal with deviation 0.02, norms 1. */
export function randomParameters(a: Architecture, seed: number): Parameters {
  const random = randomStream(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return new Map(
    [...tensorShapes(a)].map(([name, shape]) => {
      const values = new Float32Array(shape.reduce((x, y) => x * y, 1));
      return [name, shape.length === 1 ? values.fill(1) : values.map(() => DEVIATION * normal())];
    }),
  );
}
