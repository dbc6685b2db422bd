import { expect, test } from "vitest";
import { ServiceUrl } from "./service-url.ts";

test.each([
  ["http://10.0.0.1:8788", "http://10.0.0.1:8788"],
  ["https://GPU.example.com/a//", "https://gpu.example.com/a"],
  ["http://[::1]:80/", "http://[::1]"],
  // What looks like nothing would swallow the path that is put behind it.
  ["http://10.0.0.1?", "http://10.0.0.1"],
  ["http://10.0.0.1/a#", "http://10.0.0.1/a"],
  ["http:\\\\10.0.0.1\\b", "http://10.0.0.1/b"],
])("%s is understood as %s", (text, url) => {
  expect(ServiceUrl.parse(text)).toBe(url);
});

test.each([
  "",
  "10.0.0.1:8788",
  "file:///etc/passwd",
  "ftp://10.0.0.1",
  "data:text/plain,x",
  "javascript:alert(1)",
  "ws://10.0.0.1",
  "http://",
  "http://user@10.0.0.1",
  "http://user:pass@10.0.0.1",
  "http://10.0.0.1/?x=1",
  "http://10.0.0.1/#x",
  "//10.0.0.1",
  `http://10.0.0.1/${"a".repeat(3000)}`,
])("%s is refused", (text) => {
  expect(ServiceUrl.safeParse(text).success).toBe(false);
});
