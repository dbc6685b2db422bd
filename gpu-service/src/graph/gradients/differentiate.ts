import type { GraphBuilder } from "../graph-builder.ts";
import { RULES } from "./rules.ts";

/**
 * Reverse-mode differentiation of the graph built so far: appends the nodes that carry `seeds` (value → name of the loss's
 * gradient with respect to it) back to `wrt`, and returns the names of their gradients. A value that no seed depends on is
 * absent from the result.
 * @throws Error naming the operator when one on the way has no gradient rule.
 */
export function differentiate(
  b: GraphBuilder,
  seeds: ReadonlyMap<string, string>,
  wrt: readonly string[],
): Map<string, string> {
  const nodes = [...b.graph().nodes];
  const needed = new Set(wrt);
  for (const node of nodes) {
    if (node.inputs.some((name) => needed.has(name)))
      for (const output of node.outputs) if (output !== "") needed.add(output);
  }
  const gradients = new Map(seeds);
  for (const node of nodes.toReversed()) {
    const outputs = node.outputs.map((name) => gradients.get(name));
    if (outputs.every((g) => g === undefined) || !node.inputs.some((name) => needed.has(name))) continue;
    const rule = RULES[node.op];
    if (!rule) throw new Error(`no gradient rule for operator ${node.op}`);
    const wanted = (index: number) => needed.has(node.inputs[index] ?? "");
    for (const [i, gradient] of rule({ b, node, gradients: outputs, wanted }).entries()) {
      const name = node.inputs[i];
      if (gradient === undefined || name === undefined || !needed.has(name)) continue;
      const sum = gradients.get(name);
      gradients.set(name, sum === undefined ? gradient : b.node("Add", [sum, gradient]));
    }
  }
  return new Map(
    wrt.flatMap((name) => {
      const gradient = gradients.get(name);
      return gradient === undefined ? [] : [[name, gradient]];
    }),
  );
}
