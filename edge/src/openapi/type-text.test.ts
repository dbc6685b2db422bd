import { expect, test } from "vitest";
import type { JsonSchema } from "./document.ts";
import { typeText } from "./type-text.ts";

const text = (schema: JsonSchema) =>
  typeText(schema)
    .map((part) => (typeof part === "string" ? part : `<${part.schema}>`))
    .join("");

test.each<[JsonSchema, string]>([
  [{ type: "string" }, "string"],
  [{ type: "integer", minimum: 0, maximum: 9 }, "integer 0…9"],
  [{ type: "number", minimum: 0 }, "number ≥ 0"],
  [{ const: "list" }, '"list"'],
  [{ enum: ["a", 1] }, '"a" | 1'],
  [{ anyOf: [{ type: "string" }, { type: "null" }] }, "string | null"],
  [{ type: "array", items: { $ref: "#/components/schemas/Tenant" } }, "(<Tenant>)[]"],
  [{ type: "object", properties: { a: { type: "string" }, b: {} }, required: ["a"] }, "{ a: string, b?: any }"],
  [{ type: "object", additionalProperties: { type: "boolean" } }, "{ [name]: boolean }"],
  [{}, "any"],
])("%j", (schema, expected) => {
  expect(text(schema)).toBe(expected);
});
