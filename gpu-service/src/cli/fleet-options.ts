import { FleetName, ServiceUrl } from "@fathom/shared";
import { InvalidArgumentError } from "commander";

/** Parses an option that is the base URL of an edge or a service. */
export function serviceUrl(text: string): string {
  const url = ServiceUrl.safeParse(text);
  if (url.success) return url.data;
  throw new InvalidArgumentError("It must be an http or https URL without credentials, query and fragment.");
}

/** Parses an option that names a pool or a region. */
export function fleetName(text: string): string {
  const name = FleetName.safeParse(text);
  if (name.success) return name.data;
  throw new InvalidArgumentError("It must have 1 to 32 characters of a-z, 0-9 and '-'.");
}
