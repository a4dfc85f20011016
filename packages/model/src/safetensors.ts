import * as fs from "node:fs"
import { dirname, join } from "node:path"
import { fileError, SlothError } from "@sloth/core"
import { openByteSource } from "./internal/byte-source.ts"
import { isObject, parseSafetensors, safetensorsError } from "./internal/safetensors-parse.ts"
import type { TensorEntry } from "./tensor-table.ts"

/** What one or several safetensors files hold; only headers were read. */
export interface SafetensorsTable {
  /** The files, shards in the order of their names. */
  readonly files: readonly string[]
  readonly tensors: readonly TensorEntry[]
  /** The free text metadata of the headers, the first file's values winning. */
  readonly metadata: Readonly<Record<string, string>>
}

/** Bits of one element for every dtype of the format. Source: safetensors 0.8 `Dtype`. */
export const safetensorsBits: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
}

const readOne = (path: string): SafetensorsTable => {
  using source = openByteSource(path)
  return parseSafetensors(source)
}

const readIndex = (path: string): SafetensorsTable => {
  let raw: unknown
  try {
    raw = JSON.parse(fs.readFileSync(path, "utf8"))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw fileError(cause, path, "read")
    throw safetensorsError("SLOTH_SAFETENSORS_INDEX", path, "The index is not JSON.")
  }
  const map = isObject(raw) ? raw["weight_map"] : undefined
  if (!isObject(map)) throw safetensorsError("SLOTH_SAFETENSORS_INDEX", path, "The index has no weight_map.")
  const folder = dirname(path)
  const wanted = new Map<string, string>()
  for (const [name, file] of Object.entries(map)) {
    // A shard name with a path in it could reach outside the folder.
    if (typeof file !== "string" || !/^[^/\\]+\.safetensors$/.test(file)) {
      throw safetensorsError("SLOTH_SAFETENSORS_INDEX", path, `${name} points to ${JSON.stringify(file)}, not a shard.`)
    }
    wanted.set(name, file)
  }
  const shards = [...new Set(wanted.values())].sort()
  if (shards.length === 0) throw safetensorsError("SLOTH_SAFETENSORS_INDEX", path, "The index lists no tensor.")
  const found = new Map<string, TensorEntry>()
  const metadata: Record<string, string> = {}
  for (const shard of shards) {
    const file = join(folder, shard)
    if (!fs.existsSync(file)) {
      throw new SlothError("SLOTH_SAFETENSORS_SHARD", {
        what: `The shard ${shard} named by ${path} is missing.`,
        next: `Put it beside the index; ${shards.length} shards are needed.`,
        fields: { path: file, shards },
      })
    }
    const table = readOne(file)
    for (const t of table.tensors) {
      if (found.has(t.name)) {
        throw safetensorsError("SLOTH_SAFETENSORS_DUPLICATE", file, `${t.name} is also in another shard.`, {
          tensor: t.name,
        })
      }
      found.set(t.name, t)
    }
    for (const [key, value] of Object.entries(table.metadata)) metadata[key] ??= value
  }
  for (const [name, file] of wanted) {
    const t = found.get(name)
    if (t === undefined || t.path !== join(folder, file)) {
      throw safetensorsError("SLOTH_SAFETENSORS_INDEX", path, `${name} is not in ${file} as the index says.`, {
        tensor: name,
      })
    }
  }
  return { files: shards.map((s) => join(folder, s)), tensors: [...found.values()], metadata }
}

/**
 * The weight file of a folder in the order transformers looks: one file, an index of shards, a PEFT adapter, or the only safetensors file there.
 * Undefined where the folder has none.
 */
export const findSafetensors = (folder: string): string | undefined => {
  let names: string[]
  try {
    names = fs.readdirSync(folder)
  } catch (error) {
    throw fileError(error, folder, "list")
  }
  for (const name of ["model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"]) {
    if (names.includes(name)) return join(folder, name)
  }
  const rest = names.filter((n) => n.endsWith(".safetensors"))
  return rest.length === 1 ? join(folder, rest[0]!) : undefined
}

/**
 * Reads the tensor table of a safetensors file, of an `*.index.json` with its shards, or of a folder that holds either.
 *
 * **Errors**: `SLOTH_FILE_*`, `SLOTH_SAFETENSORS_*` (NONE, HEADER, TRUNCATED, OFFSETS, SHAPE, DTYPE, DUPLICATE, INDEX, SHARD).
 * **Source**: safetensors 0.8, `README.md` "Format" and `tensor.rs`.
 */
export const readSafetensors = (path: string): SafetensorsTable => {
  let isFolder: boolean
  try {
    isFolder = fs.statSync(path).isDirectory()
  } catch (error) {
    throw fileError(error, path, "open")
  }
  if (!isFolder) return path.endsWith(".json") ? readIndex(path) : readOne(path)
  const file = findSafetensors(path)
  if (file === undefined) {
    throw new SlothError("SLOTH_SAFETENSORS_NONE", {
      what: `The folder ${path} has no safetensors weights.`,
      next: "It should hold model.safetensors, or model.safetensors.index.json with its shards.",
      fields: { path },
    })
  }
  return file.endsWith(".json") ? readIndex(file) : readOne(file)
}
