import { expect, test } from "vitest";
import { send } from "../testing/edge.ts";
import { openApiDocument } from "./document.ts";
import { referencePage } from "./reference-page.ts";

const page = async () => await send("/docs");

test("shows every endpoint and every schema", async () => {
  const text = await (await page()).text();
  for (const [path, methods] of Object.entries(openApiDocument().paths)) {
    expect(text).toContain(`<code>${path}</code>`);
    for (const { operationId } of Object.values(methods)) expect(text).toContain(`id="${operationId}"`);
  }
  for (const name of Object.keys(openApiDocument().components.schemas)) expect(text).toContain(`id="schema-${name}"`);
});

test("every link inside leads somewhere", async () => {
  const text = await (await page()).text();
  const ids = new Set([...text.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id));
  const links = [...text.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id);
  expect(links.length).toBeGreaterThan(60);
  expect(links.filter((id) => !ids.has(id))).toEqual([]);
});

test("asks for nothing else, runs nothing, and is made for light, dark and phones", async () => {
  const response = await page();
  const text = await response.text();
  expect(response.headers.get("content-type")).toMatch(/^text\/html/);
  expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
  expect(text).not.toMatch(/<script|<link|<img|<iframe|@import|url\(|https?:/);
  expect(text).toContain("color-scheme: light dark");
  expect(text).toContain('name="viewport"');
  expect(text).toContain("@media (max-width:");
});

test("what the document says is text, never markup", async () => {
  const document = structuredClone(openApiDocument());
  document.info.description = "<script>alert(1)</script>";
  const text = String(await referencePage(document));
  expect(text).not.toContain("<script>");
  expect(text).toContain("&lt;script&gt;");
});
