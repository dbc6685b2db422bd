import { createServer } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { choosePorts, isFree } from "./port.ts";

test("a wanted port is never given to the other, whose default it is", async () => {
  for (const [service, edge] of [
    [undefined, 8788],
    [8787, undefined],
  ]) {
    if (!(await isFree(edge ?? service ?? 0))) continue;
    const { servicePort, edgePort } = await choosePorts({ service, edge });
    expect(servicePort).not.toBe(edgePort);
  }
});

test("both defaults move on past ports in use, each to its own", async () => {
  const blocked = [8787, 8788];
  const blockers = blocked.map((port) =>
    createServer()
      .listen(port, "127.0.0.1")
      .on("error", () => undefined),
  );
  onTestFinished(() => {
    for (const blocker of blockers) blocker.close();
  });
  await expect.poll(async () => (await Promise.all(blocked.map(isFree))).includes(true)).toBe(false);
  const { servicePort, edgePort } = await choosePorts({ service: undefined, edge: undefined });
  expect(servicePort).not.toBe(edgePort);
  expect(blocked).not.toContain(servicePort);
  expect(blocked).not.toContain(edgePort);
});

test("one port for both is refused", async () => {
  await expect(choosePorts({ service: 9000, edge: 9000 })).rejects.toThrow("--port and --service-port are both 9000");
});
