import protobuf from "protobufjs";

/**
 * The part of ONNX's schema that the builder emits; field numbers are those of onnx.proto (IR version 10).
 * https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */
const SCHEMA = `
syntax = "proto3";
package onnx;
message StringStringEntryProto { string key = 1; string value = 2; }
message TensorProto {
  repeated int64 dims = 1;
  int32 data_type = 2;
  string name = 8;
  bytes raw_data = 9;
  repeated StringStringEntryProto external_data = 13;
  int32 data_location = 14;
}
message AttributeProto {
  string name = 1; float f = 2; int64 i = 3; bytes s = 4;
  repeated float floats = 7; repeated int64 ints = 8; int32 type = 20;
}
message NodeProto {
  repeated string input = 1; repeated string output = 2; string name = 3; string op_type = 4;
  repeated AttributeProto attribute = 5; string domain = 7;
}
message Dimension { oneof value { int64 dim_value = 1; string dim_param = 2; } }
message TensorShapeProto { repeated Dimension dim = 1; }
message TensorTypeProto { int32 elem_type = 1; TensorShapeProto shape = 2; }
message TypeProto { TensorTypeProto tensor_type = 1; }
message ValueInfoProto { string name = 1; TypeProto type = 2; }
message GraphProto {
  repeated NodeProto node = 1; string name = 2; repeated TensorProto initializer = 5;
  repeated ValueInfoProto input = 11; repeated ValueInfoProto output = 12;
}
message OperatorSetIdProto { string domain = 1; int64 version = 2; }
message ModelProto {
  int64 ir_version = 1; string producer_name = 2; GraphProto graph = 7; repeated OperatorSetIdProto opset_import = 8;
}`;

const ModelProto = protobuf.parse(SCHEMA, { keepCase: true }).root.lookupType("onnx.ModelProto");

/** ONNX element types, by TensorProto.DataType number. */
export const DataType = { float32: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float16: 10 } as const;
export type DataTypeName = keyof typeof DataType;

/** Attribute values: a number is an int, `{ float }` a float, a list is ints. */
export type Attribute = number | { float: number } | string | readonly number[];
export type Attributes = Readonly<Record<string, Attribute>>;

export interface ValueInfo {
  name: string;
  type: DataTypeName;
  /** A string is a symbolic dimension; absent, the rank is left open. */
  shape?: readonly (number | string)[] | undefined;
}

export interface Initializer {
  name: string;
  type: DataTypeName;
  shape: readonly number[];
  /** Bytes held in the model, or a range of an external file relative to the model's folder. */
  data: Uint8Array | { file: string; offset: number; bytes: number };
}

export interface GraphNode {
  op: string;
  domain: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes: Attributes;
}

export interface Graph {
  name: string;
  nodes: readonly GraphNode[];
  initializers: readonly Initializer[];
  inputs: readonly ValueInfo[];
  outputs: readonly ValueInfo[];
}

const ATTRIBUTE_TYPE = { float: 1, int: 2, string: 3, ints: 7 };
const EXTERNAL = 1;
const IR_VERSION = 10;
const OPSET = [
  { domain: "", version: 21 },
  { domain: "com.microsoft", version: 1 },
];

/** Serialises a graph as an ONNX ModelProto (opset 21 and com.microsoft 1). */
export function encodeModel(graph: Graph): Uint8Array {
  return ModelProto.encode(
    ModelProto.fromObject({
      ir_version: IR_VERSION,
      producer_name: "fathom",
      opset_import: OPSET,
      graph: {
        name: graph.name,
        node: graph.nodes.map((node) => ({
          op_type: node.op,
          domain: node.domain,
          name: node.outputs.find((output) => output !== "") ?? node.op,
          input: node.inputs,
          output: node.outputs,
          attribute: Object.entries(node.attributes).map(([name, value]) => encodeAttribute(name, value)),
        })),
        initializer: graph.initializers.map(encodeInitializer),
        input: graph.inputs.map(encodeValueInfo),
        output: graph.outputs.map(encodeValueInfo),
      },
    }),
  ).finish();
}

function encodeAttribute(name: string, value: Attribute): object {
  if (typeof value === "number") return { name, i: value, type: ATTRIBUTE_TYPE.int };
  if (typeof value === "string") return { name, s: new TextEncoder().encode(value), type: ATTRIBUTE_TYPE.string };
  if ("float" in value) return { name, f: value.float, type: ATTRIBUTE_TYPE.float };
  return { name, ints: value, type: ATTRIBUTE_TYPE.ints };
}

function encodeInitializer({ name, type, shape, data }: Initializer): object {
  const tensor = { name, data_type: DataType[type], dims: shape };
  if (data instanceof Uint8Array) return { ...tensor, raw_data: data };
  return {
    ...tensor,
    data_location: EXTERNAL,
    external_data: [
      { key: "location", value: data.file },
      { key: "offset", value: String(data.offset) },
      { key: "length", value: String(data.bytes) },
    ],
  };
}

function encodeValueInfo({ name, type, shape }: ValueInfo): object {
  return {
    name,
    type: {
      tensor_type: {
        elem_type: DataType[type],
        ...(shape && {
          shape: { dim: shape.map((d) => (typeof d === "number" ? { dim_value: d } : { dim_param: d })) },
        }),
      },
    },
  };
}
