import { once } from "node:events";

interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string } }[];
  samples: number[];
  /** Microseconds before each sample. */
  timeDeltas: number[];
}

/** What V8 samples while no JavaScript runs. */
const NOT_OURS = new Set(["(idle)", "(program)", "(root)"]);

/**
 * CPU milliseconds that an isolate's JavaScript takes while `work` goes on, garbage collection included, from V8's sampling profiler.
 * @param inspector origin of workerd's inspector
 * @param worker whose isolate
 */
export async function isolateMilliseconds(
  inspector: string,
  worker: string,
  work: () => Promise<void>,
): Promise<number> {
  const targets = (await (await fetch(`${inspector}/json`)).json()) as { id: string; webSocketDebuggerUrl: string }[];
  const target = targets.find(({ id }) => id.includes(worker));
  if (!target) throw new Error(`the inspector knows no worker '${worker}': ${targets.map(({ id }) => id).join(", ")}`);
  const session = await Session.open(target.webSocketDebuggerUrl);
  try {
    await session.send("Profiler.enable");
    await session.send("Profiler.setSamplingInterval", { interval: 200 });
    await session.send("Profiler.start");
    await work();
    const { profile } = (await session.send("Profiler.stop")) as { profile: Profile };
    return ownTime(profile);
  } finally {
    session.close();
  }
}

function ownTime({ nodes, samples, timeDeltas }: Profile): number {
  const idle = new Set(nodes.filter(({ callFrame }) => NOT_OURS.has(callFrame.functionName)).map(({ id }) => id));
  // A sample stands for the time up to the next one.
  return samples.reduce((sum, id, i) => sum + (idle.has(id) ? 0 : (timeDeltas[i + 1] ?? 0)), 0) / 1000;
}

/** A connection that speaks the DevTools protocol. */
class Session {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #next = 1;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      const { id, result, error } = JSON.parse(String(data)) as { id?: number; result?: unknown; error?: object };
      const waiting = this.#waiting.get(id ?? 0);
      if (error) waiting?.reject(new Error(JSON.stringify(error)));
      else waiting?.resolve(result);
    });
  }

  static async open(url: string): Promise<Session> {
    const socket = new WebSocket(url);
    await once(socket, "open");
    return new Session(socket);
  }

  send(method: string, params: object = {}): Promise<unknown> {
    const id = this.#next++;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.#socket.send(JSON.stringify({ id, method, params }));
    return waiting.promise;
  }

  close(): void {
    this.#socket.close();
  }
}
