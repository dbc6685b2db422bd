import type { TestProject } from "vitest/node";
import { startGpuStub } from "./gpu-stub.ts";

/** Starts the stub of the GPU services for a run of the tests. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const stub = await startGpuStub();
  project.provide("stubUrl", stub.url);
  return stub.stop;
}
