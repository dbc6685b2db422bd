import { EMPTY_SHA256, ErrorBody, type ModelDescription, ModelList, ServiceLoad } from "@fathom/shared";
import { z } from "zod";
import { signServiceToken } from "../upstream/sign-token.ts";

/** A service that takes longer to say that it is well is not. */
const PROBE_TIMEOUT_MS = 1000;

const Health = z.object({ status: z.literal("ok"), load: ServiceLoad });

/** A service's load, from `GET /healthz`. @throws when it does not answer in time, or not as expected. */
export async function probeLoad(url: string): Promise<ServiceLoad> {
  const answer = await getJson(`${url}/healthz`, {});
  return Health.parse(answer).load;
}

/** The model that a service runs, from `GET /v1/models`. @throws when it does not answer in time, or not as expected. */
export async function probeModel(url: string, secret: string): Promise<ModelDescription> {
  const token = await signServiceToken(secret, {
    jti: `probe-${crypto.randomUUID()}`,
    max_depth: 1,
    body_sha256: EMPTY_SHA256,
  });
  const { data } = ModelList.parse(await getJson(`${url}/v1/models`, { authorization: `Bearer ${token}` }));
  const [model] = data;
  if (!model) throw new Error("the service lists no model");
  return model;
}

async function getJson(url: string, headers: Record<string, string>): Promise<unknown> {
  // Redirects are not followed: the token is for this service only.
  const response = await fetch(url, { headers, redirect: "manual", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
  if (response.status !== 200) {
    const said = ErrorBody.safeParse(await response.json().catch(() => undefined));
    const words = said.success ? `: ${said.data.error.message}` : "";
    throw new Error(`it answered with status ${response.status}${words}`);
  }
  return await response.json();
}
