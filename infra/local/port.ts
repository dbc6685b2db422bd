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
 * The port to use: a wanted one must be free; a default one gives way to the next free port.
 * @throws Error that names the port and the option when the wanted one is taken.
 */
export async function choosePort(option: string, wanted: number | undefined, fallback: number): Promise<number> {
  if (wanted !== undefined) {
    if (await isFree(wanted)) return wanted;
    throw new Error(`port ${wanted} is in use: stop what listens there or give another ${option}`);
  }
  for (let port = fallback; port < fallback + 50; port++) {
    if (await isFree(port)) return port;
  }
  throw new Error(`ports ${fallback} to ${fallback + 49} are all in use: give one with ${option}`);
}
