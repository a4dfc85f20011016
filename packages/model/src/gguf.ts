import * as fs from "node:fs"
import { basename, dirname, join } from "node:path"
import { SlothError } from "@sloth/core"
import { ggufNumber, type GgufMetadata } from "./gguf-types.ts"
import { openByteSource } from "./internal/byte-source.ts"
import { ggufError } from "./internal/gguf-cursor.ts"
import { parseGguf } from "./internal/gguf-parse.ts"
import type { TensorEntry } from "./tensor-table.ts"

/** A tensor of a GGUF file; `dtype` is the GGML name, `shape` row-major (`[out, in]`). */
export interface GgufTensorEntry extends TensorEntry {
  readonly ggmlType: number
}

/** What a GGUF file, or a split one, holds; only the header was read. */
export interface GgufTable {
  /** The files, in the order of the split. */
  readonly files: readonly string[]
  readonly version: number
  readonly alignment: number
  readonly metadata: GgufMetadata
  readonly tensors: readonly GgufTensorEntry[]
}

const readOne = (path: string): GgufTable => {
  using source = openByteSource(path)
  return parseGguf(source)
}

const shardName = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/

/** Paths of all files of a split model, told from the name of any of them; undefined where the name is not that of a split file. */
export const ggufShardPaths = (path: string): string[] | undefined => {
  const match = shardName.exec(basename(path))
  if (match === null) return undefined
  const [, prefix, , count] = match as unknown as [string, string, string, string]
  return Array.from({ length: Number(count) }, (_, i) =>
    join(dirname(path), `${prefix}-${String(i + 1).padStart(5, "0")}-of-${count}.gguf`),
  )
}

const mergeShards = (paths: readonly string[], first: GgufTable): GgufTable => {
  const head = paths[0]!
  const names = new Set<string>()
  const tensors: GgufTensorEntry[] = []
  paths.forEach((path, i) => {
    if (i > 0 && !fs.existsSync(path)) {
      throw new SlothError("SLOTH_GGUF_SHARD", {
        what: `Part ${i + 1} of ${paths.length} of the split model is missing: ${path}.`,
        next: `Put all ${paths.length} files into one folder.`,
        fields: { path, parts: paths.length },
      })
    }
    const table = i === 0 ? first : readOne(path)
    const number = ggufNumber(table.metadata, "split.no")
    const count = ggufNumber(table.metadata, "split.count")
    if (number !== i || count !== paths.length) {
      throw ggufError(
        "SHARD",
        path,
        `Its metadata says part ${number} of ${count}; its name says ${i} of ${paths.length}.`,
        {
          number,
          count,
        },
      )
    }
    for (const t of table.tensors) {
      if (names.has(t.name)) {
        throw ggufError("DUPLICATE", path, `Tensor ${t.name} is also in another part.`, { tensor: t.name })
      }
      names.add(t.name)
      tensors.push(t)
    }
  })
  const total = ggufNumber(first.metadata, "split.tensors.count")
  if (total !== undefined && total !== tensors.length) {
    throw ggufError("SHARD", head, `The split model should have ${total} tensors; its parts hold ${tensors.length}.`)
  }
  return { ...first, files: paths, tensors }
}

/**
 * Reads metadata and tensor table of a GGUF file (version 2 or 3). Of a split model any part may be named; all parts are read and checked.
 *
 * **Errors**: `SLOTH_FILE_*`; `SLOTH_GGUF_*` (MAGIC, VERSION, TRUNCATED, COUNT, TOO_LARGE, KEY, NAME, TYPE, TENSOR_TYPE, VALUE, DIMS, ALIGNMENT, OFFSET, DUPLICATE, SHARD).
 * **Source**: ggml `docs/gguf.md`, `src/gguf.cpp`; splits as in llama.cpp `src/llama-model-loader.cpp`.
 */
export const readGguf = (path: string): GgufTable => {
  const table = readOne(path)
  const count = ggufNumber(table.metadata, "split.count") ?? 1
  if (count <= 1) return table
  const paths = ggufShardPaths(path)
  if (paths === undefined || paths.length !== count) {
    throw new SlothError("SLOTH_GGUF_SHARD", {
      what: `${path} is one part of ${count}, but its name does not end in "-00001-of-${String(count).padStart(5, "0")}.gguf".`,
      next: "Give the parts back the names they were made with.",
      fields: { path, count },
    })
  }
  // All metadata of the model is in the first part.
  const first = ggufNumber(table.metadata, "split.no") === 0 ? table : readOne(paths[0]!)
  return mergeShards(paths, first)
}
