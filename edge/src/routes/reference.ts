import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { openApiDocument } from "../openapi/document.ts";
import { referencePage } from "../openapi/reference-page.ts";

/** The document changes with a deployment only. */
const CACHE = "public, max-age=300";

/** `GET /openapi.json`. */
export function showDocument(c: Context<AppEnv>): Response {
  c.header("cache-control", CACHE);
  return c.json(openApiDocument());
}

/** `GET /docs`: the same as a page. */
export async function showReference(c: Context<AppEnv>): Promise<Response> {
  c.header("cache-control", CACHE);
  c.header(
    "content-security-policy",
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
  );
  return c.html(await referencePage(openApiDocument()));
}
