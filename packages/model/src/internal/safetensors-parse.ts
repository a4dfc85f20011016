import { SlothError } from "@sloth/core"
import { safetensorsBits, type SafetensorsTable } from "../safetensors.ts"
import type { TensorEntry } from "../tensor-table.ts"
import type { ByteSource } from "./byte-source.ts"
import { topLevelKeys } from "./json-keys.ts"

/** Largest header that is read; the reference implementation has the same limit. */
const maxHeaderBytes = 100_000_000
const maxDimensions = 16

/** Makes a coded error about a damaged safetensors file. */
export const safetensorsError = (
  code: `SLOTH_SAFETENSORS_${string}`,
  path: string,
  what: string,
  fields: Record<string, unknown> = {},
): SlothError =>
  new SlothError(code, {
    what: `${path}: ${what}`,
    next: "The file is damaged or incomplete; download or export it again.",
    fields: { path, ...fields },
  })

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Bytes of a tensor, or undefined where they are not a whole number. */
const byteLength = (shape: readonly number[], bits: number): number | undefined => {
  let elements = 1
  for (const n of shape) {
    elements *= n
    if (!Number.isSafeInteger(elements)) return undefined
  }
  const total = elements * bits
  return Number.isSafeInteger(total) && total % 8 === 0 ? total / 8 : undefined
}

const parseEntry = (path: string, name: string, raw: unknown, dataStart: number, dataBytes: number): TensorEntry => {
  const fields = { tensor: name }
  if (name === "") throw safetensorsError("SLOTH_SAFETENSORS_HEADER", path, "A tensor has an empty name.")
  if (!isObject(raw))
    throw safetensorsError("SLOTH_SAFETENSORS_HEADER", path, `The entry of ${name} is not an object.`, fields)
  const { dtype, shape, data_offsets: range } = raw
  const bits = typeof dtype === "string" && Object.hasOwn(safetensorsBits, dtype) ? safetensorsBits[dtype] : undefined
  if (typeof dtype !== "string" || bits === undefined) {
    throw safetensorsError(
      "SLOTH_SAFETENSORS_DTYPE",
      path,
      `${name} has the unknown dtype ${JSON.stringify(dtype)}.`,
      fields,
    )
  }
  if (
    !Array.isArray(shape) ||
    shape.length > maxDimensions ||
    !shape.every((n): n is number => Number.isSafeInteger(n) && (n as number) >= 0)
  ) {
    throw safetensorsError("SLOTH_SAFETENSORS_SHAPE", path, `${name} has no valid shape.`, fields)
  }
  if (
    !Array.isArray(range) ||
    range.length !== 2 ||
    !range.every((n): n is number => Number.isSafeInteger(n) && (n as number) >= 0)
  ) {
    throw safetensorsError("SLOTH_SAFETENSORS_OFFSETS", path, `${name} has no valid data_offsets.`, fields)
  }
  const [begin, end] = range as [number, number]
  if (begin > end || end > dataBytes) {
    throw safetensorsError(
      "SLOTH_SAFETENSORS_OFFSETS",
      path,
      `${name} lies at bytes ${begin} to ${end} of a data section of ${dataBytes} bytes.`,
      fields,
    )
  }
  if (byteLength(shape, bits) !== end - begin) {
    throw safetensorsError(
      "SLOTH_SAFETENSORS_SHAPE",
      path,
      `${name} with shape [${shape.join(", ")}] and dtype ${dtype} does not fill its ${end - begin} bytes.`,
      fields,
    )
  }
  return { name, dtype, shape, path, offset: dataStart + begin, bytes: end - begin }
}

/** Reads and checks one header; every number is compared with the size of the file before it is used. */
export const parseSafetensors = (source: ByteSource): SafetensorsTable => {
  const { path, size } = source
  if (size < 8) throw safetensorsError("SLOTH_SAFETENSORS_TRUNCATED", path, `The file has only ${size} bytes.`)
  const prefix = Buffer.alloc(8)
  source.read(prefix, 0)
  const headerBytes = Number(prefix.readBigUInt64LE(0))
  if (headerBytes > maxHeaderBytes || headerBytes < 2) {
    throw safetensorsError(
      "SLOTH_SAFETENSORS_HEADER",
      path,
      `The header claims ${headerBytes} bytes; this is not a safetensors file.`,
      { headerBytes },
    )
  }
  if (8 + headerBytes > size) {
    throw safetensorsError(
      "SLOTH_SAFETENSORS_TRUNCATED",
      path,
      `The header claims ${headerBytes} bytes but the file has ${size}.`,
      { headerBytes, size },
    )
  }
  const headerBuffer = Buffer.allocUnsafe(headerBytes)
  source.read(headerBuffer, 8)
  let text: string
  let header: unknown
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(headerBuffer)
    header = JSON.parse(text)
  } catch (cause) {
    throw new SlothError("SLOTH_SAFETENSORS_HEADER", {
      what: `${path}: The header is not JSON.`,
      next: "The file is damaged or is not safetensors; download or export it again.",
      fields: { path },
      cause,
    })
  }
  if (!isObject(header)) throw safetensorsError("SLOTH_SAFETENSORS_HEADER", path, "The header is not an object.")
  const seen = new Set<string>()
  for (const key of topLevelKeys(text)) {
    if (seen.has(key)) {
      throw safetensorsError("SLOTH_SAFETENSORS_DUPLICATE", path, `${key} is listed twice.`, { tensor: key })
    }
    seen.add(key)
  }

  const metadata: Record<string, string> = {}
  const dataStart = 8 + headerBytes
  const dataBytes = size - dataStart
  const tensors: TensorEntry[] = []
  for (const [name, raw] of Object.entries(header)) {
    if (name === "__metadata__") {
      if (!isObject(raw) || !Object.values(raw).every((v) => typeof v === "string")) {
        throw safetensorsError("SLOTH_SAFETENSORS_HEADER", path, "__metadata__ must map text to text.")
      }
      Object.assign(metadata, raw)
      continue
    }
    tensors.push(parseEntry(path, name, raw, dataStart, dataBytes))
  }
  // Tensors must tile the data section: a gap or an overlap means a wrong offset somewhere.
  const inOrder = [...tensors].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)
  let expected = dataStart
  for (const t of inOrder) {
    if (t.offset !== expected) {
      throw safetensorsError(
        "SLOTH_SAFETENSORS_OFFSETS",
        path,
        `${t.name} begins at byte ${t.offset} where ${expected} was due: tensors overlap or leave a gap.`,
        { tensor: t.name },
      )
    }
    expected += t.bytes
  }
  if (expected !== size) {
    throw safetensorsError(
      "SLOTH_SAFETENSORS_TRUNCATED",
      path,
      `The tensors end at byte ${expected} but the file has ${size}.`,
      {
        expected,
        size,
      },
    )
  }
  return { files: [path], tensors, metadata }
}
