import { SlothError } from "@sloth/core"

/** A repository on the hub at a revision, and for models the choice of one GGUF file. */
export interface HubRef {
  readonly type: "model" | "dataset"
  /** `org/name`. */
  readonly name: string
  /** Branch, tag or commit. */
  readonly revision: string
  /** A file's path in the repository, or a part of a GGUF file's name such as `Q4_K_M`. */
  readonly file: string | undefined
}

const pattern = /^(datasets\/)?([\w.-]+\/[\w.-]+?)(?:@([^:]+))?(?::(.+))?$/

/** True where a text has the form of a hub id; it says nothing about whether the repository exists. */
export const looksLikeHubRef = (spec: string): boolean =>
  pattern.test(spec.replace(/^(https?:\/\/)?(huggingface\.co|hf\.co)\//, "")) && !/^\.{0,2}\//.test(spec)

/**
 * Reads `org/name[@revision][:file]`, `datasets/org/name[@revision][:file]` or the address of a repository.
 *
 * **Errors**: `SLOTH_HUB_REF`.
 */
export const parseHubRef = (spec: string): HubRef => {
  const match = pattern.exec(spec.replace(/^(https?:\/\/)?(huggingface\.co|hf\.co)\//, ""))
  const name = match?.[2]
  // A name or revision with parts of dots would be a path out of the cache.
  const parts = [...(name ?? "").split("/"), ...(match?.[3] ?? "main").split("/")]
  if (match === null || name === undefined || parts.some((part) => /^\.*$/.test(part))) {
    throw new SlothError("SLOTH_HUB_REF", {
      what: `${JSON.stringify(spec)} is not a hub id.`,
      next: "Write org/name, org/name@revision, org/name:Q4_K_M or datasets/org/name.",
      fields: { spec },
    })
  }
  return {
    type: match[1] === undefined ? "model" : "dataset",
    name,
    revision: match[3] ?? "main",
    file: match[4],
  }
}

/** The reference as a user writes it. */
export const formatHubRef = (ref: HubRef): string =>
  `${ref.type === "dataset" ? "datasets/" : ""}${ref.name}${ref.revision === "main" ? "" : `@${ref.revision}`}${ref.file === undefined ? "" : `:${ref.file}`}`
