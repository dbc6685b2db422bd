import "vitest";

declare module "vitest" {
  export interface ProvidedContext {
    /** Base URL of the stub of the GPU services; add a name to get a service of one's own. */
    stubUrl: string;
  }
}
