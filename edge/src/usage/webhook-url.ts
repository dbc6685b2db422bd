import ipaddr from "ipaddr.js";

/** Names that lead into the own network wherever they are resolved. */
const LOCAL_NAME = /(^|\.)(localhost|local|internal|lan|home\.arpa)$/;

/**
 * What is wrong with a URL that others choose and we call; undefined when nothing is. Only https to a public host: no
 * credentials, no address of a private, loopback, link-local or other special range in whatever spelling, no local name.
 * @param allowLocalhost permits http and https to this machine, for tests
 */
export function webhookUrlProblem(text: string, allowLocalhost: boolean): string | undefined {
  if (!URL.canParse(text)) return "must be a URL";
  const { protocol, username, password, hostname, hash } = new URL(text);
  if (`${username}${password}` !== "") return "must not hold credentials";
  if (hash !== "") return "must not hold a fragment";
  // The URL parser has brought every spelling of an IPv4 address to the dotted one.
  const host = hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
  if (allowLocalhost && isLoopback(host) && /^https?:$/.test(protocol)) return undefined;
  if (protocol !== "https:") return "must be https";
  if (ipaddr.isValid(host)) {
    const range = ipaddr.process(host).range();
    return range === "unicast" ? undefined : `must be a public host, not a ${range} address`;
  }
  if (!host.includes(".") || LOCAL_NAME.test(host)) return "must be a public host, not a local name";
  return undefined;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || (ipaddr.isValid(host) && ipaddr.process(host).range() === "loopback");
}
