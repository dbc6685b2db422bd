import { html, raw } from "hono/html";
import type { DocumentedOperation, JsonSchema, MediaType, OpenApiDocument } from "./document.ts";
import { REFERENCE_STYLE } from "./reference-style.ts";
import { typeText } from "./type-text.ts";

type Html = ReturnType<typeof html>;

interface Entry extends DocumentedOperation {
  method: string;
  path: string;
}

/** The document as a page to read: it needs nothing but itself, neither scripts nor other files. */
export function referencePage(document: OpenApiDocument): Html {
  const { info, tags, components } = document;
  const entries = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): Entry => ({ method, path, ...operation })),
  );
  const groups = tags.map(({ name }) => ({ name, entries: entries.filter(({ tags: [tag] }) => tag === name) }));
  const schemas = Object.entries(components.schemas);
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${info.title} API</title>
<style>${raw(REFERENCE_STYLE)}</style>
</head>
<body><div class="page">
<nav aria-label="Contents">
${groups.map(({ name, entries: listed }) => html`<strong>${name}</strong><ul>${listed.map(navigationItem)}</ul>`)}
<strong>Schemas</strong><ul>${schemas.map(([name]) => html`<li>${schemaLink(name)}</li>`)}</ul>
</nav>
<main>
<h1>${info.title} API</h1>
<p>${info.description}</p>
<p class="dim">Version ${info.version}. As a file: <a href="/openapi.json">openapi.json</a></p>
${groups.map(({ name, entries: listed }) => html`<h2>${name}</h2>${listed.map(operationSection)}`)}
<h2>Schemas</h2>
${schemas.map(([name, schema]) => schemaSection(name, schema))}
</main>
</div></body>
</html>`;
}

function navigationItem({ operationId, summary }: Entry): Html {
  return html`<li><a href="#${operationId}">${summary}</a></li>`;
}

function operationSection(entry: Entry): Html {
  const { operationId, method, path, summary, description, security, parameters = [], requestBody, responses } = entry;
  const keys = security.flatMap((choice) => Object.keys(choice));
  return html`<article id="${operationId}">
<h3><span class="method">${method}</span> <code>${path}</code></h3>
<p>${summary}${keys.includes("admin") ? html` <span class="dim">(administrator)</span>` : ""}</p>
${description === undefined ? "" : html`<p class="dim">${withCode(description)}</p>`}
${
  parameters.length === 0
    ? ""
    : html`<h4>Parameters</h4><table>${parameters.map(
        ({ name, in: place, description: text = "", schema }) =>
          html`<tr><td><code>${name}</code></td><td>${type(schema)}</td><td>${withCode(text)} <span class="dim">${place}</span></td></tr>`,
      )}</table>`
}
${requestBody ? html`<h4>Body${requestBody.required ? "" : " (may be left out)"}</h4>${bodies(requestBody.content)}` : ""}
<h4>Answers</h4><table>${Object.entries(responses).map(
    ([status, { description: text, content = {} }]) =>
      html`<tr><td class="status"><code>${status}</code></td><td>${withCode(text)}</td><td>${bodies(content)}</td></tr>`,
  )}</table>
</article>`;
}

function bodies(content: Record<string, MediaType>): Html[] {
  return Object.entries(content).map(
    ([mediaType, { schema }]) =>
      html`<div>${schema?.$ref === undefined ? "" : type(schema)} <span class="dim">${mediaType === "application/json" ? "" : mediaType}</span></div>`,
  );
}

function schemaSection(name: string, schema: JsonSchema): Html {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {});
  return html`<article id="schema-${name}">
<h3><code>${name}</code></h3>
${schema.description === undefined ? "" : html`<p class="dim">${withCode(schema.description)}</p>`}
${
  fields.length === 0
    ? html`<p>${type(schema)}</p>`
    : html`<table>${fields.map(
        ([field, value]) =>
          html`<tr><td><code>${field}</code>${required.has(field) ? "" : html` <span class="dim">optional</span>`}</td><td>${type(value)}</td><td>${withCode(descriptionOf(value))}</td></tr>`,
      )}</table>`
}
</article>`;
}

function type(schema: JsonSchema | boolean): Html {
  const parts = typeText(schema).map((part) => (typeof part === "string" ? part : schemaLink(part.schema)));
  return html`<code>${parts}</code>`;
}

function schemaLink(name: string): Html {
  return html`<a href="#schema-${name}">${name}</a>`;
}

function descriptionOf(schema: JsonSchema | boolean): string {
  return typeof schema === "object" ? (schema.description ?? "") : "";
}

/** Text with what stands between backticks as code. */
function withCode(text: string): Html[] {
  return text.split("`").map((part, i) => (i % 2 === 0 ? html`${part}` : html`<code>${part}</code>`));
}
