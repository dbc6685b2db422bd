import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { settingsOf } from "./settings.ts";

const with_ = (more: Record<string, string>) => settingsOf({ ...env, ...more } as Env);

test("reads the services, in order and once each", () => {
  const { upstreams, serviceCapacity, requestTimeoutMs } = with_({
    UPSTREAMS: "http://10.0.0.1:8788/, https://gpu.example.com/a ,http://10.0.0.1:8788",
    SERVICE_CAPACITY: "4",
    REQUEST_TIMEOUT_SECONDS: "60",
  });
  expect(upstreams).toEqual(["http://10.0.0.1:8788", "https://gpu.example.com/a"]);
  expect([serviceCapacity, requestTimeoutMs]).toEqual([4, 60_000]);
});

test("what need not be given: services that register themselves, regions, hedges", () => {
  const settings = with_({ UPSTREAMS: "", REGION_ORDER: "", HEDGE_AFTER_MS: "" });
  expect(settings).toMatchObject({ upstreams: [], pool: "default", regionOrder: [], hedgeAfterMs: undefined });
  const given = with_({ POOL: "gpu-a", REGION_ORDER: "eu, us-east", HEDGE_AFTER_MS: "800" });
  expect(given).toMatchObject({ pool: "gpu-a", regionOrder: ["eu", "us-east"], hedgeAfterMs: 800 });
});

test.each([
  ["BATCH_MAX_LINES", "many"],
  ["BATCH_MAX_LINES", "50001"],
  ["BATCH_MAX_FILE_MEGABYTES", "101"],
  ["UPSTREAMS", "localhost:8788"],
  ["UPSTREAMS", "file:///etc/passwd"],
  ["UPSTREAMS", "http://user:pass@10.0.0.1"],
  ["UPSTREAMS", "http://10.0.0.1/?x=1"],
  ["UPSTREAMS", "http://10.0.0.1,"],
  ["POOL", "Pool 1"],
  ["REGION_ORDER", "eu,"],
  ["FIRST_BYTE_TIMEOUT_MS", "0"],
  ["HEDGE_AFTER_MS", "-1"],
  ["SERVICE_CAPACITY", "000000"],
  ["SERVICE_CAPACITY", "many"],
  ["REQUEST_TIMEOUT_SECONDS", "-1"],
  ["SERVICE_SECRET", "too short"],
  ["ADMIN_SECRET", ""],
])("names the variable that is wrong, not its value: %s = %j", (name, value) => {
  expect(() => with_({ [name]: value })).toThrow(new RegExp(`\\n {2}${name}: `));
  if (value !== "") expect(() => with_({ [name]: value })).not.toThrow(value);
});
