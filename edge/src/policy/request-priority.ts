import type { RequestPriority } from "@fathom/shared";
import type { Plan } from "./plan.ts";

/**
 * How a plan's requests wait for a service: every step of priority doubles their share, so that priority 9 hardly waits for 4 and
 * that one hardly for 0, and none of them starves. At ten times the share enterprise waited as long as pro at three times the
 * capacity: a share that is nearly used up is a queue.
 */
export function requestPriority({ priority }: Plan, priorityClass: RequestPriority["class"]): RequestPriority {
  return { class: priorityClass, weight: 2 ** priority };
}
