import type { RequestPriority } from "@fathom/shared";
import type { Plan } from "./plan.ts";

/** How a plan's requests wait for a service: 10 times the share of priority 0 for priority 9, and none of them starves. */
export function requestPriority({ priority }: Plan, priorityClass: RequestPriority["class"]): RequestPriority {
  return { class: priorityClass, weight: 1 + priority };
}
