import * as fs from "node:fs"
import { SlothError } from "@sloth/core"
import { weightFormat, weightFormats, type Engine, type Tensor, type WeightProvider } from "@sloth/tensor"
import { interleavedRow } from "./family.ts"
import type { TensorEntry } from "./tensor-table.ts"

/** Where a weight lies, and whether its rows are stored interleaved. */
export interface StoredWeight {
  readonly entry: TensorEntry
  /** Rows of one head when the rows are in GGUF's interleaved order. */
  readonly interleavedHeadDim: number | undefined
}

const formatOf = (entry: TensorEntry, name: string): string => {
  const id = entry.dtype.toLowerCase()
  const known = weightFormats().map((f) => f.id)
  if (!known.includes(id))
    throw new SlothError("SLOTH_MODEL_FORMAT", {
      what: `${name} is stored as ${entry.dtype}, a format that no loaded package reads.`,
      next: `Formats that can be read: ${known.join(", ")}. Use a file in one of them.`,
      fields: { weight: name, format: entry.dtype, known, path: entry.path },
    })
  return id
}

const readBytes = (entry: TensorEntry): Uint8Array => {
  const bytes = new Uint8Array(entry.bytes)
  const fd = fs.openSync(entry.path, "r")
  try {
    let at = 0
    while (at < bytes.length) {
      const n = fs.readSync(fd, bytes, at, bytes.length - at, entry.offset + at)
      if (n === 0)
        throw new SlothError("SLOTH_FILE_TRUNCATED", {
          what: `${entry.path} ended inside ${entry.name}.`,
          next: "Download the file again.",
          fields: { path: entry.path, tensor: entry.name },
        })
      at += n
    }
  } finally {
    fs.closeSync(fd)
  }
  return bytes
}

/**
 * Reads weights of a model's files: matrices are used in place from the file mapping, in the format they are stored in; vectors become f32; rows that GGUF
 * interleaves are put back in order, which copies those matrices.
 */
export const fileWeights = (engine: Engine, table: ReadonlyMap<string, StoredWeight>): WeightProvider => ({
  weight(name, shape, kind) {
    const stored = table.get(name)
    if (stored === undefined)
      throw new SlothError("SLOTH_MODEL_WEIGHT_MISSING", {
        what: `The model's files hold no ${name}.`,
        why: "The configuration asks for it.",
        next: "Check that all shards are there and that config.json belongs to these weights.",
        fields: { weight: name, shape },
      })
    const { entry, interleavedHeadDim } = stored
    if (entry.shape.length !== shape.length || entry.shape.some((d, i) => d !== shape[i]))
      throw new SlothError("SLOTH_MODEL_WEIGHT_SHAPE", {
        what: `${name} is [${entry.shape.join(", ")}] in the file, but the configuration makes it [${shape.join(", ")}].`,
        next: "Check that configuration and weights belong together.",
        fields: { weight: name, stored: entry.shape, expected: shape, path: entry.path },
      })
    const id = formatOf(entry, name)
    const format = weightFormat(id)
    let tensor: Tensor
    if (interleavedHeadDim === undefined) tensor = engine.mapFile(entry.path, entry.offset, shape, id)
    else {
      const source = readBytes(entry)
      const ordered = new Uint8Array(source.length)
      const rowBytes = source.length / shape[0]!
      for (let row = 0; row < shape[0]!; row++) {
        const from = interleavedRow(row, interleavedHeadDim) * rowBytes
        ordered.set(source.subarray(from, from + rowBytes), row * rowBytes)
      }
      tensor = engine.unscoped(shape, id)
      tensor.write(ordered)
    }
    if (kind === "matrix" || id === "f32") return tensor
    const n = shape.reduce((a, b) => a * b, 1)
    const floats = engine.unscoped(shape)
    engine.backend.kernels.dequantize(floats.handle, tensor.handle, format.code, 1, n)
    tensor.dispose()
    return floats
  },
})

/** Fresh weights for pretraining: matrices normal with deviation `std` (0.02 as transformers' Llama), norms one, biases zero. */
export const randomWeights = (engine: Engine, seed: number, std = 0.02): WeightProvider => {
  let stream = 1 << 20 // far from the streams of adapters
  return {
    weight(name, shape, kind) {
      const tensor = engine.unscoped(shape)
      if (kind === "matrix") engine.backend.kernels.randomNormal(tensor.handle, 0, std, tensor.size, seed, stream++)
      else engine.backend.kernels.fill(tensor.handle, name.endsWith(".bias") ? 0 : 1, tensor.size)
      return tensor
    },
  }
}
