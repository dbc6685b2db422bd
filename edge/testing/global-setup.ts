import type { TestProject } from "vitest/node";
import { startGpuStub } from "./gpu-stub.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** Base URL of the stub; add a name to get a service of one's own. */
    stubUrl: string;
  }
}

/** Starts the stub of the GPU services for a run of the tests. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const stub = await startGpuStub();
  project.provide("stubUrl", stub.url);
  return stub.stop;
}
