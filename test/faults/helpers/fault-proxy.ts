import { createServer, type IncomingHttpHeaders, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What happens to requests to generate; the others always reach the service. */
export type Fault =
  | { kind: "none" }
  /** They reach it after so many milliseconds. */
  | { kind: "slow"; ms: number }
  /** The proxy answers as no service would. */
  | { kind: "garbage"; status: number; type: string; text: string };

export interface FaultProxy {
  url: string;
  fault: Fault;
  /** Headers of the requests to generate, as they came over the wire. */
  seen: IncomingHttpHeaders[];
  stop(): Promise<void>;
}

/** Stands between the edge and a service, and does what a bad network or a bad neighbour does. */
export async function faultProxy(service: string): Promise<FaultProxy> {
  const server = createServer((from, to) => {
    const { fault, seen } = proxy;
    if (from.method === "POST") seen.push(from.headers);
    if (from.method !== "POST" || fault.kind === "none") return pass(service, from, to);
    if (fault.kind === "slow") {
      setTimeout(() => pass(service, from, to), fault.ms);
      return;
    }
    from.resume();
    to.writeHead(fault.status, { "content-type": fault.type }).end(fault.text);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: FaultProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    fault: { kind: "none" },
    seen: [],
    stop: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
  return proxy;
}

function pass(service: string, from: IncomingMessage, to: ServerResponse): void {
  const { hostname, port } = new URL(service);
  const options = { hostname, port, method: from.method, path: from.url, headers: from.headers };
  const onward = request(options, (answer) => {
    to.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(to);
  });
  onward.on("error", () => to.destroy());
  to.on("close", () => onward.destroy());
  from.pipe(onward);
}
