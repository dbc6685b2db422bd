import { ApiError, type ErrorCode } from "@fathom/shared";

/** Why the directory did not do what it was asked. A value, not an error: errors lose their class between objects. */
export interface Problem {
  code: ErrorCode;
  message: string;
  param?: string;
}

export type Outcome<T> = { value: T } | { problem: Problem };

/** @throws ApiError for a problem. */
export function unwrap<T>(outcome: Outcome<T>): T {
  if ("value" in outcome) return outcome.value;
  const { code, message, param } = outcome.problem;
  throw new ApiError(code, message, param === undefined ? {} : { param });
}

export function noTenant(name: string): { problem: Problem } {
  return { problem: { code: "not_found", message: `There is no tenant '${name}'.`, param: "tenant" } };
}

export function noKey(id: string): { problem: Problem } {
  return { problem: { code: "not_found", message: `There is no key '${id.slice(0, 64)}'.`, param: "id" } };
}

export function invalid(param: string, problem: string): { problem: Problem } {
  return { problem: { code: "invalid_request", message: `'${param}': ${problem}`, param } };
}
