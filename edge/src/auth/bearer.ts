import { ApiError } from "@fathom/shared";

/**
 * The token of an `Authorization: Bearer` header.
 * @throws ApiError `missing_api_key` without the header, `invalid_api_key` when it is of another form.
 */
export function bearerToken(header: string | undefined): string {
  if (header === undefined) throw new ApiError("missing_api_key", "Send the key as 'Authorization: Bearer KEY'.");
  const token = /^Bearer +(\S+) *$/i.exec(header)?.[1];
  if (token === undefined) {
    throw new ApiError("invalid_api_key", "The Authorization header is not of the form 'Bearer KEY'.");
  }
  return token;
}
