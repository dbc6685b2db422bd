import type { DocumentedOperation } from "../openapi/document.ts";
import { openApiDocument } from "../openapi/document.ts";

/** An endpoint with something in the place of its path's parameters. */
export interface Endpoint extends DocumentedOperation {
  method: string;
  path: string;
}

/** Every endpoint, by the document: a test of it holds the document against all routes. */
export function endpoints(): Endpoint[] {
  return Object.entries(openApiDocument().paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      ...operation,
      method: method.toUpperCase(),
      path: path.replace(/\{\w+\}/g, "x"),
    })),
  );
}

/** Those that read a JSON body. */
export function jsonEndpoints(): Endpoint[] {
  return endpoints().filter(({ requestBody }) => requestBody?.content["application/json"]);
}
