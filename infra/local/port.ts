import { createServer } from "node:net";

const HOST = "127.0.0.1";

/** Whether a server could listen on the loopback port now. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, HOST, () => server.close(() => resolve(true)));
  });
}

/**
 * The ports to use: a wanted one must be free; a default one gives way to the next free port, and never is the other's.
 * @throws Error that names the port and the option when a wanted one is taken.
 */
export async function choosePorts(wanted: {
  service: number | undefined;
  edge: number | undefined;
}): Promise<{ servicePort: number; edgePort: number }> {
  if (wanted.edge !== undefined && wanted.edge === wanted.service) {
    throw new Error(`--port and --service-port are both ${wanted.edge}: give the service another one`);
  }
  // None listens yet, so that each would find the other's port free.
  const servicePort = await choosePort("--service-port", wanted.service, 8788, wanted.edge);
  const edgePort = await choosePort("--port", wanted.edge, 8787, servicePort);
  return { servicePort, edgePort };
}

async function choosePort(
  option: string,
  wanted: number | undefined,
  fallback: number,
  other: number | undefined,
): Promise<number> {
  if (wanted !== undefined) {
    if (await isFree(wanted)) return wanted;
    throw new Error(`port ${wanted} is in use: stop what listens there or give another ${option}`);
  }
  for (let port = fallback; port < fallback + 50; port++) {
    if (port !== other && (await isFree(port))) return port;
  }
  throw new Error(`ports ${fallback} to ${fallback + 49} are all in use: give one with ${option}`);
}
