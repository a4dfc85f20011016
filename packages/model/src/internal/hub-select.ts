import { basename } from "node:path"
import { formatBytes } from "@sloth/core"
import { formatHubRef, type HubRef } from "../hub-ref.ts"
import type { HubFile } from "./hub-cache.ts"
import { hubError } from "./hub-http.ts"

const companions = new Set([
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "adapter_config.json",
])

const shard = /-(\d{5})-of-(\d{5})\.(gguf|safetensors)$/

/** Files of a model that are needed to load it. */
export interface HubSelection {
  readonly kind: "safetensors" | "gguf"
  readonly files: readonly HubFile[]
  /** The file to open: the GGUF file or its first part. */
  readonly main: HubFile
}

interface GgufModel {
  readonly name: string
  readonly files: HubFile[]
  readonly size: number
}

/** GGUF models of a repository; the parts of a split one together, projectors of vision models left out. */
const ggufModels = (files: readonly HubFile[]): GgufModel[] => {
  const groups = new Map<string, HubFile[]>()
  for (const file of files) {
    if (!file.path.endsWith(".gguf") || /(^|\/)mmproj-/i.test(file.path)) continue
    const name = file.path.replace(shard, ".gguf")
    const group = groups.get(name)
    if (group === undefined) groups.set(name, [file])
    else group.push(file)
  }
  return [...groups].map(([name, group]) => ({
    name,
    files: group.sort((a, b) => (a.path < b.path ? -1 : 1)),
    size: group.reduce((n, f) => n + f.size, 0),
  }))
}

const listed = (models: readonly GgufModel[]): string =>
  models.map((m) => `${m.name} (${formatBytes(m.size)})`).join(", ")

const pickGguf = (ref: HubRef, wanted: string, models: readonly GgufModel[]): GgufModel => {
  const exact = models.filter((m) => m.name === wanted || m.files.some((f) => f.path === wanted))
  const part = wanted.toLowerCase().replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)
  const named = new RegExp(`(^|[-._])${part}([-._]|$)`)
  const found = exact.length > 0 ? exact : models.filter((m) => named.test(basename(m.name).toLowerCase()))
  if (found.length === 1) return found[0]!
  throw hubError(
    "SLOTH_HUB_FILE_NOT_FOUND",
    ref,
    found.length === 0 ? `${ref.name} has no GGUF file ${wanted}.` : `${wanted} fits several files of ${ref.name}.`,
    models.length === 0 ? "It has no GGUF file at all." : `Choose one of: ${listed(models)}.`,
    { wanted, choices: models.map((m) => m.name) },
  )
}

/** Chooses the files that loading a model needs: configuration, tokenizer, and safetensors weights or one GGUF model. */
export const selectModelFiles = (ref: HubRef, files: readonly HubFile[]): HubSelection => {
  const models = ggufModels(files)
  const asGguf = (model: GgufModel): HubSelection => ({ kind: "gguf", files: model.files, main: model.files[0]! })
  if (ref.file !== undefined) return asGguf(pickGguf(ref, ref.file, models))

  const root = new Map(files.filter((f) => !f.path.includes("/")).map((f) => [f.path, f]))
  const own = [...root.values()].filter((f) => companions.has(f.path))
  for (const name of ["model.safetensors", "adapter_model.safetensors"]) {
    const main = root.get(name)
    if (main !== undefined) return { kind: "safetensors", files: [...own, main], main }
  }
  const index = root.get("model.safetensors.index.json")
  if (index !== undefined) {
    const shards = [...root.values()].filter((f) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(f.path))
    return { kind: "safetensors", files: [...own, index, ...shards], main: index }
  }
  if (models.length === 1) return asGguf(models[0]!)
  if (models.length > 1) {
    throw hubError(
      "SLOTH_HUB_CHOOSE",
      ref,
      `${ref.name} has ${models.length} GGUF models.`,
      `Name one, as in ${formatHubRef({ ...ref, file: "Q4_K_M" })}: ${listed(models)}.`,
      { choices: models.map((m) => m.name) },
    )
  }
  const others = files.filter((f) => /\.(bin|pt|pth|safetensors|h5|msgpack|onnx)$/.test(f.path)).map((f) => f.path)
  throw hubError(
    "SLOTH_HUB_NO_WEIGHTS",
    ref,
    `${formatHubRef(ref)} has neither model.safetensors nor a GGUF file.`,
    others.length > 0
      ? `It has ${others.slice(0, 5).join(", ")}. Look for a revision or a repository with safetensors.`
      : "Check that it is a model.",
    { files: others },
  )
}
