import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * A GPU service that answers at once, in a process of its own, so that only the router's time shows. Prints its URL, and ends
 * with its standard input.
 */
const exits = [12, 18, 24, 30].map((depth) => ({ depth, parameters: depth, bytes: depth }));
const model = {
  id: "stub",
  object: "model",
  created: 0,
  owned_by: "fathom",
  fathom: { layers: 30, context_length: 8192, exits, bytes: 30, parameters: 30 },
};
const usage = { prompt_tokens: 4, completion_tokens: 4, total_tokens: 8 };
const layers = { total: 96, mean: 24, min: 24, max: 24, histogram: { "24": 4 } };
const timing = {
  queue_ms: 0,
  prefill_ms: 1,
  time_to_first_token_ms: 1,
  decode_ms: 1,
  total_ms: 2,
  inter_token_ms_mean: 0.3,
  tokens_per_second: 3000,
};
const cost = { layer_tokens: 192, micro_usd: 2 };
const answer = JSON.stringify({
  id: "cmpl-stub",
  object: "text_completion",
  created: 0,
  model: "stub",
  choices: [
    { index: 0, text: "four tokens are here", finish_reason: "length", logprobs: null, layers_used: [24, 24, 24, 24] },
  ],
  usage,
  fathom: { depth: 24, exit: "fixed", reason: "plan", layers, timing, cost },
});
const replies: Record<string, string> = {
  "/healthz": JSON.stringify({ status: "ok", load: { running: 0, waiting: 0 } }),
  "/v1/models": JSON.stringify({ object: "list", data: [model] }),
  "/v1/completions": answer,
};

const server = createServer((request, response) => {
  request.resume().on("end", () => {
    const text = replies[request.url ?? ""];
    response.writeHead(text === undefined ? 404 : 200, { "content-type": "application/json" }).end(text);
  });
});
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}\n`);
});
process.stdin.resume().on("end", () => process.exit(0));
