import { SlothError } from "@sloth/core"

import { bf16Format } from "./formats/bf16.ts"
import { f16Format } from "./formats/f16.ts"
import { f32Format } from "./formats/f32.ts"
import { q4_0Format } from "./formats/q4-0.ts"
import { q4_1Format } from "./formats/q4-1.ts"
import { q8_0Format } from "./formats/q8-0.ts"

/**
 * How the elements of a stored weight are laid out: rows of whole blocks, each block `blockSize` elements in `blockBytes` bytes, little-endian.
 *
 * Codes of formats that GGUF knows are ggml type ids; a plugin's own format takes a code of 65536 or above.
 */
export interface WeightFormat {
  /** Name of the format, such as "q4_0". */
  readonly id: string
  /** Number that kernels take as `format`. */
  readonly code: number
  /** Elements in a block; the columns of a weight are a multiple of it. */
  readonly blockSize: number
  /** Bytes of a block. */
  readonly blockBytes: number
  /** Decodes `n` elements (a multiple of `blockSize`) from the start of `src` to the start of `out`. */
  dequantizeRow(src: Uint8Array, out: Float32Array, n: number): void
  /** Encodes `n` elements (a multiple of `blockSize`) from the start of `src` to the start of `out`; absent for read-only formats. */
  quantizeRow?(src: Float32Array, out: Uint8Array, n: number): void
}

/** Bytes that `elements` elements take in a format. Errors: SLOTH_FORMAT_SIZE when that is not a whole number of blocks. */
export function bytesFor(format: WeightFormat, elements: number): number {
  if (!Number.isSafeInteger(elements) || elements < 0 || elements % format.blockSize !== 0) {
    throw new SlothError("SLOTH_FORMAT_SIZE", {
      what: `${elements} elements cannot be stored as ${format.id}.`,
      why: `The format stores whole blocks of ${format.blockSize} elements.`,
      next: "Choose a format whose block size divides the row length, such as f16.",
      fields: { format: format.id, elements, blockSize: format.blockSize },
    })
  }
  return (elements / format.blockSize) * format.blockBytes
}

const byId = new Map<string, WeightFormat>()
const byCode = new Map<number, WeightFormat>()

/**
 * Adds a weight format to the registry, so that files and the reference backend can use it.
 * Errors: SLOTH_FORMAT_INVALID for impossible sizes, SLOTH_FORMAT_DUPLICATE when the id or the code is taken by another format.
 */
export function registerWeightFormat(format: WeightFormat): void {
  const whole = (value: number, least: number): boolean => Number.isSafeInteger(value) && value >= least
  if (
    format.id === "" ||
    !whole(format.code, 0) ||
    format.code > 0x7fffffff ||
    !whole(format.blockSize, 1) ||
    !whole(format.blockBytes, 1)
  ) {
    throw new SlothError("SLOTH_FORMAT_INVALID", {
      what: `Weight format "${format.id}" cannot be registered.`,
      why: "It needs an id, a code that fits in 31 bits, and a block size and block bytes of at least 1.",
      fields: { id: format.id, code: format.code, blockSize: format.blockSize, blockBytes: format.blockBytes },
    })
  }
  const other = byId.get(format.id) ?? byCode.get(format.code)
  if (other === format) return
  if (other !== undefined) {
    throw new SlothError("SLOTH_FORMAT_DUPLICATE", {
      what: `Weight format "${format.id}" (code ${format.code}) cannot be registered.`,
      why: `"${other.id}" (code ${other.code}) is registered already.`,
      next: "Give the new format another id and code.",
      fields: { id: format.id, code: format.code, existing: other.id },
    })
  }
  byId.set(format.id, format)
  byCode.set(format.code, format)
}

for (const format of [f32Format, f16Format, q4_0Format, q4_1Format, q8_0Format, bf16Format]) {
  registerWeightFormat(format)
}

/** The format with this id or code. Errors: SLOTH_FORMAT_UNKNOWN, with the known ones. */
export function weightFormat(idOrCode: string | number): WeightFormat {
  const found = typeof idOrCode === "number" ? byCode.get(idOrCode) : byId.get(idOrCode)
  if (found !== undefined) return found
  const known = weightFormats().map((format) => `${format.id} (${format.code})`)
  throw new SlothError("SLOTH_FORMAT_UNKNOWN", {
    what: `Weight format ${JSON.stringify(idOrCode)} is not known.`,
    why: `The known formats are ${known.join(", ")}.`,
    next: "Convert the weight to one of these, or load the plugin that brings its format.",
    fields: { format: idOrCode, known: weightFormats().map((format) => format.id) },
  })
}

/** All registered formats, in the order of their codes. */
export const weightFormats = (): readonly WeightFormat[] => [...byCode.values()].sort((a, b) => a.code - b.code)
