import { z } from "zod";

/**
 * Base URL of a service: http or https, without credentials, query and fragment. Comes out in the form in which a path may be
 * put behind it, without a slash at the end.
 */
export const ServiceUrl = z
  .string()
  .max(2048)
  .refine(isServiceUrl, { error: "must be http or https URLs without credentials, query and fragment" })
  // As it was understood, not as it was written: behind "http://host?" a path would be a query.
  .transform((text) => {
    const { origin, pathname } = new URL(text);
    return `${origin}${pathname}`.replace(/\/+$/, "");
  });

function isServiceUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, search, hash } = new URL(text);
  return /^https?:$/.test(protocol) && `${username}${password}${search}${hash}` === "";
}
