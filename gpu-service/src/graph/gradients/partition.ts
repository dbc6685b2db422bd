import type { DataTypeName, Graph, GraphNode, ValueInfo } from "../onnx.ts";

/** A graph cut in two: what the second part reads of the first is saved in between. */
export interface Partition {
  forward: Graph;
  backward: Graph;
  /** Values that the forward graph gives for the backward graph, beside its own outputs. */
  saved: readonly string[];
}

/**
 * Cuts a differentiated graph behind its first `forwardNodes` nodes, so that the forward pass of every layer can run before
 * the first backward pass. Each output goes to the part that produces it.
 */
export function partition(graph: Graph, forwardNodes: number): Partition {
  const produced = new Set(graph.nodes.slice(0, forwardNodes).flatMap((node) => node.outputs));
  const forward: GraphNode[] = [];
  const backward: GraphNode[] = [];
  for (const [index, node] of graph.nodes.entries()) {
    // A shape is a few numbers: taking it in the forward pass saves keeping the value it is of.
    const early = node.op === "Shape" && produced.has(node.inputs[0] ?? "");
    (index < forwardNodes || early ? forward : backward).push(node);
  }
  const types = new Map<string, DataTypeName>();
  for (const node of forward)
    for (const output of node.outputs) types.set(output, node.op === "Shape" ? "int64" : "float32");
  const saved = [...new Set(backward.flatMap((node) => node.inputs))].filter((name) => types.has(name));
  const asValue = (name: string): ValueInfo => ({ name, type: types.get(name) ?? "float32", shape: undefined });
  const forwardOutputs = graph.outputs.filter(({ name }) => types.has(name));
  return {
    forward: {
      ...restrict(graph, forward, []),
      name: `${graph.name}, forward`,
      outputs: [
        ...forwardOutputs,
        ...saved.filter((name) => !forwardOutputs.some((o) => o.name === name)).map(asValue),
      ],
    },
    backward: {
      ...restrict(graph, backward, saved.map(asValue)),
      name: `${graph.name}, backward`,
      outputs: graph.outputs.filter(({ name }) => !types.has(name)),
    },
    saved,
  };
}

/** The nodes with the inputs and initializers that they use. */
function restrict(graph: Graph, nodes: readonly GraphNode[], extraInputs: readonly ValueInfo[]): Graph {
  const used = new Set(nodes.flatMap((node) => node.inputs));
  return {
    name: graph.name,
    nodes,
    initializers: graph.initializers.filter(({ name }) => used.has(name)),
    inputs: [...graph.inputs, ...extraInputs].filter(({ name }) => used.has(name)),
    outputs: [],
  };
}
