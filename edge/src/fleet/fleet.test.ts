import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { eventually, StubService } from "../testing/edge.ts";
import { asReady } from "./service-state.ts";

const newFleet = () => env.FLEET.getByName(crypto.randomUUID());

test("knows the load and the model of each service", async () => {
  const one = await new StubService().set({ load: { running: 3, waiting: 1 } });
  const other = await new StubService().set({ model: "other" });
  const { services, ageMs } = await newFleet().snapshot([one.url, other.url]);
  expect(services.map(({ url, load, model }) => [url, load, model?.id])).toEqual([
    [one.url, { running: 3, waiting: 1 }, "stub-30"],
    [other.url, { running: 0, waiting: 0 }, "other"],
  ]);
  expect(services.every((service) => asReady(service) !== undefined)).toBe(true);
  expect(ageMs).toBeLessThanOrEqual(1000);
});

test("a service that does not answer, or not as one of ours, is not ready", async () => {
  const ill = await new StubService().set({ status: 500 });
  const odd = await new StubService().set({ load: { running: -1, waiting: 0 } });
  const { services } = await newFleet().snapshot([ill.url, odd.url, "http://127.0.0.1:9"]);
  expect(services.map(({ load }) => load)).toEqual([undefined, undefined, undefined]);
  expect(services.every((service) => asReady(service) === undefined)).toBe(true);
});

test("asks a service at most once a second, however many want to know", async () => {
  const fleet = newFleet();
  const service = new StubService();
  const started = Date.now();
  const snapshots = await Promise.all(Array.from({ length: 50 }, () => fleet.snapshot([service.url])));
  for (const { services } of snapshots) expect(services[0]?.load).toBeDefined();
  await fleet.snapshot([service.url]);
  const seconds = Math.floor((Date.now() - started) / 1000);
  expect(await service.healthChecks()).toBeLessThanOrEqual(1 + seconds);
});

test("a service that does not answer holds up nobody once that is known", async () => {
  const fleet = newFleet();
  const [well, stuck] = [new StubService(), new StubService()];
  const urls = [well.url, stuck.url];
  const known = async () => (await fleet.snapshot(urls)).services.map(({ load }) => load !== undefined);
  await stuck.set({ healthDelayMs: 60_000 });
  expect(await known()).toEqual([true, false]);
  const started = Date.now();
  let slowest = 0;
  while (Date.now() - started < 2500) {
    const asked = Date.now();
    expect(await known()).toEqual([true, false]);
    slowest = Math.max(slowest, Date.now() - asked);
    await scheduler.wait(20);
  }
  // A probe gives up after a second.
  expect(slowest).toBeLessThan(900);
  await stuck.set({ healthDelayMs: 0 });
  expect(await eventually(known, ([, back]) => back === true)).toEqual([true, true]);
});

test("notices that a service went away, that it came back, and what it runs since", async () => {
  const fleet = newFleet();
  const service = new StubService();
  const state = async () => (await fleet.snapshot([service.url])).services[0];
  expect((await state())?.load).toBeDefined();
  await service.set({ status: 503 });
  expect((await eventually(state, (s) => s?.load === undefined))?.load).toBeUndefined();
  await service.set({ status: 200, model: "new" });
  expect((await eventually(state, (s) => s?.load !== undefined))?.model?.id).toBe("new");
});
