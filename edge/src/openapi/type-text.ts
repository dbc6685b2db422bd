import type { JsonSchema } from "./document.ts";

/** A piece of a type as it is read: text, or the name of a schema. */
export type TypePart = string | { schema: string };

/** A JSON Schema in one line, as a programmer writes a type: `(string | null)[]`, `1 | 2`, `integer 0…9`. */
export function typeText(schema: JsonSchema | boolean | undefined): TypePart[] {
  if (typeof schema !== "object") return ["any"];
  const name = schemaName(schema.$ref);
  if (name !== undefined) return [{ schema: name }];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return joined(choices.map(typeText), " | ");
  if (schema.allOf) return joined(schema.allOf.map(typeText), " & ");
  if (schema.type === "array") return ["(", ...typeText(itemsOf(schema)), ")[]"];
  if (schema.type === "object") return objectText(schema);
  return [`${schema.type ?? "any"}${bounds(schema)}`];
}

/** The name that a `$ref` of the document points to. */
export function schemaName(ref: string | undefined): string | undefined {
  return ref?.match(/^#\/components\/schemas\/(\w+)$/)?.[1];
}

function objectText(schema: JsonSchema): TypePart[] {
  const fields = Object.entries(schema.properties ?? {});
  if (fields.length === 0) {
    return typeof schema.additionalProperties === "object"
      ? ["{ [name]: ", ...typeText(schema.additionalProperties), " }"]
      : ["object"];
  }
  const required = new Set(schema.required ?? []);
  const parts = fields.map(([name, field]) => [`${name}${required.has(name) ? "" : "?"}: `, ...typeText(field)]);
  return ["{ ", ...joined(parts, ", "), " }"];
}

function itemsOf({ items }: JsonSchema): JsonSchema | boolean | undefined {
  return Array.isArray(items) ? undefined : (items as JsonSchema | boolean | undefined);
}

function bounds({ minimum, maximum }: JsonSchema): string {
  if (minimum === undefined && maximum === undefined) return "";
  if (maximum === undefined) return ` ≥ ${minimum}`;
  return minimum === undefined ? ` ≤ ${maximum}` : ` ${minimum}…${maximum}`;
}

function joined(lists: readonly TypePart[][], separator: string): TypePart[] {
  return lists.flatMap((parts, i) => (i === 0 ? parts : [separator, ...parts]));
}
