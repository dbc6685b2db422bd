import type { ApiError } from "@fathom/shared";

/** A line of the output file: what an interactive request would have been answered. */
export function answeredResult(customId: string, requestId: string, body: unknown): string {
  return resultLine(customId, { status_code: 200, request_id: requestId, body }, null);
}

/** A line of the error file: what an interactive request would have been refused with. */
export function refusedResult(customId: string, requestId: string, error: ApiError): string {
  return resultLine(customId, { status_code: error.status, request_id: requestId, body: error.toBody() }, null);
}

/** A line of the error file for a request that was never run. */
export function unrunResult(customId: string, reason: "expired" | "cancelled"): string {
  const message =
    reason === "expired"
      ? "This request could not be executed before the completion window expired."
      : "This request was not executed, since the batch was cancelled.";
  return resultLine(customId, null, { code: `batch_${reason}`, message });
}

function resultLine(customId: string, response: unknown, error: unknown): string {
  const id = `batch_req_${crypto.randomUUID().replaceAll("-", "")}`;
  return JSON.stringify({ id, custom_id: customId, response, error });
}
