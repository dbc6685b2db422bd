import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** What the stub does with one request. */
export type StubAnswer =
  /** Texts with the time before each, milliseconds; then the usage, if any, and `[DONE]`. */
  | { texts: [afterMs: number, text: string][]; usage?: object; fathom?: object; done?: boolean }
  | { status: number; body: unknown }
  /** Cuts the connection without an answer. */
  | "hang up"
  | "never answer";

export interface StubRequest {
  path: string;
  headers: IncomingHttpHeaders;
  body: Record<string, unknown>;
  /** `performance.now()` when the request had come. */
  at: number;
}

export interface StubServer {
  url: string;
  requests: StubRequest[];
  close(): Promise<void>;
}

/** A server on loopback that speaks as much of OpenAI's streaming API as a script says. */
export async function stubServer(script: (request: StubRequest, index: number) => StubAnswer): Promise<StubServer> {
  const requests: StubRequest[] = [];
  const server = createServer(async (incoming, response) => {
    let text = "";
    for await (const chunk of incoming.setEncoding("utf8")) text += chunk;
    if (incoming.method === "GET") {
      response.setHeader("content-type", "application/json").end('{"data": [{"id": "stub"}]}');
      return;
    }
    const { url: path = "", headers } = incoming;
    const request = { path, headers, body: JSON.parse(text), at: performance.now() };
    requests.push(request);
    await reply(response, script(request, requests.length - 1), path.endsWith("chat/completions"));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function reply(response: ServerResponse, answer: StubAnswer, chat: boolean): Promise<void> {
  if (answer === "never answer") return;
  if (answer === "hang up") {
    response.destroy();
    return;
  }
  if ("status" in answer) {
    response.writeHead(answer.status, { "content-type": "application/json" }).end(JSON.stringify(answer.body));
    return;
  }
  const send = (event: object) => response.write(`data: ${JSON.stringify(event)}\n\n`);
  const choice = (content: string) => (chat ? { delta: { content } } : { text: content });
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
  if (chat) send({ choices: [{ delta: { role: "assistant", content: "" }, finish_reason: null }] });
  for (const [afterMs, content] of answer.texts) {
    await sleep(afterMs);
    send({ choices: [{ ...choice(content), finish_reason: null }] });
  }
  const { usage, fathom, done = true } = answer;
  if (usage || fathom) send({ choices: [], usage, fathom });
  response.end(done ? "data: [DONE]\n\n" : "");
}
