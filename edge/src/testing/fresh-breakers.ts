import { beforeAll } from "vitest";
import { forgetBreakers } from "../fleet/breakers.ts";

// All files share one isolate: a service that one file breaks on purpose must not be left alone in the next.
beforeAll(() => forgetBreakers());
