import { Agent, request } from "node:http";

/** What became of one request. */
export interface Outcome {
  plan: string;
  /** Seconds since the start when it was due. */
  at: number;
  status: number;
  code: string | undefined;
  depth: number | undefined;
  /** Milliseconds from when it was due to the first token. */
  ttftMs: number | undefined;
  /** Milliseconds per token after the first. */
  tpotMs: number | undefined;
}

const agent = new Agent({ keepAlive: true, maxSockets: 1024 });

/** Sends one streamed completion and reads it to its end. Never throws: what failed has a status and a code. */
export function ask(
  url: string,
  key: string,
  body: object,
  due: { plan: string; at: number; start: number },
): Promise<Outcome> {
  const { plan, at, start } = due;
  const dueAt = start + 1000 * at;
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const end = (status: number, code?: string, depth?: number, first?: number, last?: number, tokens = 0) =>
    resolve({
      plan,
      at,
      status,
      code,
      depth,
      ttftMs: first === undefined ? undefined : first - dueAt,
      tpotMs: first === undefined || last === undefined || tokens < 2 ? undefined : (last - first) / (tokens - 1),
    });
  request(`${url}/v1/completions`, { agent, method: "POST", headers }, (response) => {
    const status = response.statusCode ?? 0;
    let text = "";
    let first: number | undefined;
    let last: number | undefined;
    let tokens = 0;
    response.setEncoding("utf8").on("data", (chunk: string) => {
      if (status !== 200) {
        text += chunk;
        return;
      }
      const decided = [...chunk.matchAll(/"layers_used":\[([\d,]+)\]/g)];
      const count = decided.reduce((sum, [, list = ""]) => sum + list.split(",").length, 0);
      if (count === 0) return;
      last = performance.now();
      first ??= last;
      tokens += count;
    });
    response.on("end", () => {
      const depth = Number(response.headers["x-fathom-depth"]) || undefined;
      if (status === 200) end(status, undefined, depth, first, last, tokens);
      else end(status, /"code":"([a-z_]+)"/.exec(text)?.[1], depth);
    });
    response.on("error", () => end(0, "broken"));
  })
    .on("error", () => end(0, "broken"))
    .end(JSON.stringify({ ...body, stream: true }));
  return promise;
}
