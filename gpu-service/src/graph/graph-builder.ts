import {
  type Attributes,
  type DataTypeName,
  encodeModel,
  type Graph,
  type GraphNode,
  type Initializer,
  type ValueInfo,
} from "./onnx.ts";

export const MICROSOFT = "com.microsoft";

/** Collects nodes in topological order. Every method that adds a node returns the name of its output. */
export class GraphBuilder {
  readonly #name: string;
  readonly #nodes: GraphNode[] = [];
  readonly #initializers = new Map<string, Initializer>();
  readonly #inputs: ValueInfo[] = [];
  readonly #outputs: ValueInfo[] = [];
  #counter = 0;

  constructor(name: string) {
    this.#name = name;
  }

  /** Declares a graph input. */
  input(name: string, type: DataTypeName, shape: readonly (number | string)[]): string {
    this.#inputs.push({ name, type, shape });
    return name;
  }

  /** Makes `value` a graph output; `name` renames it through the node that produced it. */
  output(name: string, type: DataTypeName, shape?: readonly (number | string)[]): void {
    this.#outputs.push({ name, type, shape });
  }

  /** Adds an initializer once; a second call with the same name is the same tensor. */
  initializer(initializer: Initializer): string {
    if (!this.#initializers.has(initializer.name)) this.#initializers.set(initializer.name, initializer);
    return initializer.name;
  }

  /** An int64 vector constant, shared by value. */
  int64s(values: readonly number[]): string {
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    return this.initializer({ name: `int64[${values.join(",")}]`, type: "int64", shape: [values.length], data });
  }

  /** A float32 scalar constant, shared by value. */
  float32(value: number): string {
    const data = new Uint8Array(Float32Array.of(value).buffer);
    return this.initializer({ name: `float32(${value})`, type: "float32", shape: [], data });
  }

  /** A float32 constant. */
  matrix(name: string, values: Float32Array, shape: readonly number[]): string {
    const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return this.initializer({ name, type: "float32", shape, data });
  }

  /** Adds a node of one output, named `as` or a fresh name. */
  node(
    op: string,
    inputs: readonly string[],
    options: { attributes?: Attributes; domain?: string; as?: string } = {},
  ): string {
    const output = options.as ?? this.#fresh(op);
    this.nodes(op, inputs, [output], options);
    return output;
  }

  /** Adds a node with the given output names; an empty name leaves an optional output out. */
  nodes(
    op: string,
    inputs: readonly string[],
    outputs: readonly string[],
    options: { attributes?: Attributes; domain?: string } = {},
  ): void {
    this.#nodes.push({ op, inputs, outputs, domain: options.domain ?? "", attributes: options.attributes ?? {} });
  }

  /** Adds a node with `count` freshly named outputs. */
  multi(op: string, inputs: readonly string[], count: number, attributes: Attributes = {}): string[] {
    const outputs = Array.from({ length: count }, () => this.#fresh(op));
    this.nodes(op, inputs, outputs, { attributes });
    return outputs;
  }

  /** Splits the last axis into parts of the given sizes. */
  split(value: string, sizes: readonly number[]): string[] {
    return this.multi("Split", [value, this.int64s(sizes)], sizes.length, { axis: -1 });
  }

  /** A fresh value name for nodes whose outputs are named by the caller. */
  fresh(hint: string): string {
    return this.#fresh(hint);
  }

  graph(): Graph {
    return {
      name: this.#name,
      nodes: this.#nodes,
      initializers: [...this.#initializers.values()],
      inputs: this.#inputs,
      outputs: this.#outputs,
    };
  }

  /** The serialised model. */
  encode(): Uint8Array {
    return encodeModel(this.graph());
  }

  #fresh(hint: string): string {
    return `${hint}_${this.#counter++}`;
  }
}
