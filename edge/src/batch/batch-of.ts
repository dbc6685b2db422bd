import type { Batch } from "./batch.ts";

/** The batch of a tenant: under another tenant's name there is another one, which was never begun. */
export function batchOf(env: Env, tenant: string, id: string): DurableObjectStub<Batch> {
  return env.BATCH.getByName(`${tenant}/${id}`);
}
