import { ApiError, type ErrorCode } from "@fathom/shared";
import { z } from "zod";
import { ADMIN_OPERATIONS } from "./admin-operations.ts";
import { API_OPERATIONS } from "./api-operations.ts";
import type { Operation } from "./operation.ts";
import { SCHEMAS, type SchemaName } from "./schemas.ts";

/** A JSON Schema as it stands in the document. */
export type JsonSchema = z.core.JSONSchema.BaseSchema;

export interface MediaType {
  schema?: JsonSchema;
}

export interface Parameter {
  name: string;
  in: "path" | "query";
  required: boolean;
  description?: string;
  schema: JsonSchema;
}

export interface DocumentedResponse {
  description: string;
  content?: Record<string, MediaType>;
}

export interface DocumentedOperation {
  operationId: string;
  summary: string;
  description?: string;
  tags: string[];
  security: Record<string, string[]>[];
  parameters?: Parameter[];
  requestBody?: { required: boolean; content: Record<string, MediaType> };
  responses: Record<string, DocumentedResponse>;
}

/** OpenAPI 3.1, as far as it is used here. */
export interface OpenApiDocument {
  openapi: "3.1.0";
  info: { title: string; version: string; description: string; license: { name: string; identifier: string } };
  servers: { url: string }[];
  tags: { name: string }[];
  paths: Record<string, Record<string, DocumentedOperation>>;
  components: { schemas: Record<string, JsonSchema>; securitySchemes: Record<string, unknown> };
}

/** Every endpoint of the edge. */
const OPERATIONS: readonly Operation[] = [...API_OPERATIONS, ...ADMIN_OPERATIONS];

const VERSION = "0.1.0";

let built: OpenApiDocument | undefined;

/** The document of this API, made from the schemas that check its requests. Made once. */
export function openApiDocument(): OpenApiDocument {
  built ??= {
    openapi: "3.1.0",
    info: {
      title: "Fathom",
      version: VERSION,
      description: "OpenAI's interface for text, with a dial for the depth of the model. Money is in micro-USD.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    tags: [...new Set(OPERATIONS.map(({ tag }) => tag))].map((name) => ({ name })),
    paths: paths(),
    components: {
      schemas: componentSchemas(),
      securitySchemes: {
        apiKey: { type: "http", scheme: "bearer", description: "A customer's key: `fk_<id>_<secret>`." },
        admin: { type: "http", scheme: "bearer", description: "The administrator's secret." },
      },
    },
  };
  return built;
}

function componentSchemas(): Record<string, JsonSchema> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(SCHEMAS)) registry.add(schema, { id });
  const { schemas } = z.toJSONSchema(registry, {
    target: "draft-2020-12",
    // What a client may send; answers have no defaults to tell apart.
    io: "input",
    uri: pointerTo,
    override: ({ jsonSchema }) => dropSafeBounds(jsonSchema),
  });
  return Object.fromEntries(
    Object.entries(schemas).map(([name, { $schema: _, $id: __, ...schema }]) => [name, schema as JsonSchema]),
  );
}

/** That an integer is one that JavaScript can hold tells a reader nothing. */
function dropSafeBounds(schema: JsonSchema): void {
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum;
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum;
}

function paths(): OpenApiDocument["paths"] {
  const result: OpenApiDocument["paths"] = {};
  for (const operation of OPERATIONS) {
    const path = operation.path.replace(/:(\w+)/g, "{$1}");
    result[path] = { ...result[path], [operation.method]: describe(operation) };
  }
  return result;
}

function describe(operation: Operation): DocumentedOperation {
  const { id, summary, description, tag, auth, body } = operation;
  const parameters = parametersOf(operation);
  return {
    operationId: id,
    summary,
    ...(description !== undefined && { description }),
    tags: [tag],
    security: auth === "none" ? [] : [{ [auth]: [] }],
    ...(parameters.length > 0 && { parameters }),
    ...(body && {
      requestBody: {
        required: body.optional !== true,
        content: { [body.mediaType ?? "application/json"]: { schema: refTo(body.schema) } },
      },
    }),
    responses: { ...answerOf(operation), ...errorsOf(operation) },
  };
}

function parametersOf({ path, query = [] }: Operation): Parameter[] {
  const inPath = [...path.matchAll(/:(\w+)/g)].map(
    ([, name = ""]): Parameter => ({ name, in: "path", required: true, schema: { type: "string" } }),
  );
  const inQuery = query.map(
    ({ name, description, type, default: preset }): Parameter => ({
      name,
      in: "query",
      required: false,
      description,
      schema: { type, ...(preset !== undefined && { default: preset }) },
    }),
  );
  return [...inPath, ...inQuery];
}

function answerOf({ answer: { status, description, schema, others = [] } }: Operation) {
  const content: Record<string, MediaType> = schema ? { "application/json": { schema: refTo(schema) } } : {};
  for (const other of others) {
    content[other.mediaType] = { schema: { ...(other.schema && refTo(other.schema)), description: other.description } };
  }
  return { [status]: { description, content } };
}

/** The errors that an endpoint may answer with, by status: a description lists their codes. */
function errorsOf({ auth, body, errors = [], answer }: Operation): Record<string, DocumentedResponse> {
  if (auth === "none" && answer.status === 200 && errors.length === 0) return {};
  const codes = new Set<ErrorCode>(["missing_api_key", "invalid_api_key", ...errors, "internal_error"]);
  if (auth === "apiKey") codes.add("permission_denied").add("upstream_unavailable");
  if (body) codes.add("invalid_json").add("invalid_request").add("body_too_large");
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of codes) {
    const { status } = new ApiError(code, "");
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return Object.fromEntries(
    [...byStatus].map(([status, list]) => [
      String(status),
      {
        description: list.map((code) => `\`${code}\``).join(", "),
        content: { "application/json": { schema: refTo("Error") } },
      },
    ]),
  );
}

function refTo(name: SchemaName): { $ref: string } {
  return { $ref: pointerTo(name) };
}

function pointerTo(name: string): string {
  return `#/components/schemas/${name}`;
}
