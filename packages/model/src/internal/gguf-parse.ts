import { ggmlTypes, ggufScalarIds, type GgufMetadata, type GgufScalarType, type GgufValue } from "../gguf-types.ts"
import type { GgufTable, GgufTensorEntry } from "../gguf.ts"
import type { ByteSource } from "./byte-source.ts"
import { GgufCursor, ggufError } from "./gguf-cursor.ts"

const scalarById = new Map<number, GgufScalarType>(
  (Object.entries(ggufScalarIds) as [GgufScalarType, number][]).map(([name, id]) => [id, name]),
)

const scalarBytes: Readonly<Record<Exclude<GgufScalarType, "string">, number>> = {
  u8: 1,
  i8: 1,
  bool: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  u64: 8,
  i64: 8,
  f64: 8,
}

const arrayTypeId = 9
const maxDimensions = 4
/** A tensor name is a fixed field of 64 bytes in ggml, the final NUL included. */
const maxTensorNameBytes = 63
/** name length, dimension count, type, offset: the least a tensor's entry can take */
const minTensorInfoBytes = 8 + 4 + 4 + 8
/** key length, one letter, type, one byte */
const minPairBytes = 8 + 1 + 4 + 1

const narrow = (n: bigint): number | bigint =>
  n >= BigInt(Number.MIN_SAFE_INTEGER) && n <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(n) : n

/** Decodes `count` packed scalars. */
const readPacked = (
  view: Buffer,
  type: Exclude<GgufScalarType, "string" | "bool">,
  count: number,
): (number | bigint)[] => {
  const size = scalarBytes[type]
  const out: (number | bigint)[] = []
  for (let i = 0, at = 0; i < count; i++, at += size) {
    switch (type) {
      case "u8":
        out[i] = view.readUInt8(at)
        break
      case "i8":
        out[i] = view.readInt8(at)
        break
      case "u16":
        out[i] = view.readUInt16LE(at)
        break
      case "i16":
        out[i] = view.readInt16LE(at)
        break
      case "u32":
        out[i] = view.readUInt32LE(at)
        break
      case "i32":
        out[i] = view.readInt32LE(at)
        break
      case "f32":
        out[i] = view.readFloatLE(at)
        break
      case "f64":
        out[i] = view.readDoubleLE(at)
        break
      case "u64":
        out[i] = narrow(view.readBigUInt64LE(at))
        break
      case "i64":
        out[i] = narrow(view.readBigInt64LE(at))
        break
    }
  }
  return out
}

const readBools = (view: Buffer, path: string, key: string): boolean[] =>
  Array.from(view, (b) => {
    if (b > 1) throw ggufError("VALUE", path, `${key} holds ${b} where a flag (0 or 1) is due.`, { key })
    return b === 1
  })

const readValue = (c: GgufCursor, key: string): GgufValue => {
  const { path } = c.source
  const id = c.u32(`the type of ${key}`)
  if (id !== arrayTypeId) {
    const type = scalarById.get(id)
    if (type === undefined) throw ggufError("TYPE", path, `${key} has the unknown value type ${id}.`, { key, type: id })
    if (type === "string") return { type, value: c.string(key) }
    const view = c.bytes(scalarBytes[type], key)
    if (type === "bool") return { type, value: readBools(view, path, key)[0]! }
    return { type, value: readPacked(view, type, 1)[0]! } as GgufValue
  }
  const itemId = c.u32(`the item type of ${key}`)
  const items = scalarById.get(itemId)
  if (items === undefined) {
    throw ggufError("TYPE", path, `${key} is an array of the unsupported type ${itemId}.`, { key, type: itemId })
  }
  const count = c.count(`the length of ${key}`)
  const least = items === "string" ? 8 : scalarBytes[items]
  if (count * least > c.remaining) {
    throw ggufError("COUNT", path, `${key} claims ${count} items, more than the file could hold.`, { key, count })
  }
  if (items === "string") {
    const value: string[] = []
    for (let i = 0; i < count; i++) value.push(c.string(key))
    return { type: "array", items, value }
  }
  const view = c.bytes(count * scalarBytes[items], key)
  if (items === "bool") return { type: "array", items, value: readBools(view, path, key) }
  return { type: "array", items, value: readPacked(view, items, count) } as GgufValue
}

const readMagic = (c: GgufCursor): number => {
  const { path } = c.source
  const magic = c.bytes(4, "the magic number").toString("latin1")
  if (magic !== "GGUF") {
    throw ggufError("MAGIC", path, `The file begins with ${JSON.stringify(magic)}, not "GGUF".`, { magic })
  }
  const version = c.u32("the version")
  if (version === 2 || version === 3) return version
  const swapped = version !== 0 && (version & 0xffff) === 0
  throw ggufError(
    "VERSION",
    path,
    swapped
      ? "The file is in big-endian byte order; only little-endian files are read."
      : `The file has version ${version}; versions 2 and 3 are read.`,
    { version },
  )
}

interface TensorInfo {
  readonly name: string
  readonly shape: readonly number[]
  readonly type: number
  readonly dtype: string
  readonly offset: number
  readonly bytes: number
}

const readTensorInfo = (c: GgufCursor, index: number): TensorInfo => {
  const { path, size } = c.source
  const name = c.string(`the name of tensor ${index}`)
  const fields = { tensor: name }
  if (name === "" || Buffer.byteLength(name) > maxTensorNameBytes) {
    throw ggufError("NAME", path, `Tensor ${index} has a name of ${Buffer.byteLength(name)} bytes (1 to 63 allowed).`)
  }
  const dims = c.u32(`the dimensions of ${name}`)
  if (dims > maxDimensions) {
    throw ggufError("DIMS", path, `${name} claims ${dims} dimensions; at most ${maxDimensions} exist.`, fields)
  }
  const ne: number[] = []
  let elements = 1
  for (let i = 0; i < dims; i++) {
    const n = c.count(`the dimensions of ${name}`)
    elements *= n
    // No type packs more than 8 weights into a byte, so this bounds the product before any use.
    if (n === 0 || !Number.isSafeInteger(elements) || elements > size * 8) {
      throw ggufError("DIMS", path, `${name} has impossible dimensions (${[...ne, n].join(" x ")}).`, fields)
    }
    ne.push(n)
  }
  const id = c.u32(`the type of ${name}`)
  const type = ggmlTypes.get(id)
  if (type === undefined) {
    throw ggufError("TENSOR_TYPE", path, `${name} has the unknown tensor type ${id}.`, { ...fields, type: id })
  }
  if ((ne[0] ?? 1) % type.blockSize !== 0) {
    throw ggufError(
      "DIMS",
      path,
      `${name} has rows of ${ne[0] ?? 1} weights; ${type.name} needs a multiple of ${type.blockSize}.`,
      fields,
    )
  }
  const offset = c.count(`the offset of ${name}`)
  return {
    name,
    shape: ne.reverse(),
    type: id,
    dtype: type.name,
    offset,
    bytes: (elements / type.blockSize) * type.blockBytes,
  }
}

const readAlignment = (path: string, metadata: GgufMetadata): number => {
  const entry = metadata.get("general.alignment")
  if (entry === undefined) return 32
  const n = entry.type === "u32" ? entry.value : 0
  if (n === 0 || (n & (n - 1)) !== 0) {
    throw ggufError("ALIGNMENT", path, "general.alignment is not a u32 power of two.", { alignment: entry.value })
  }
  return n
}

/** Reads and checks one header; every length, count and offset is compared with the file before it is used. */
export const parseGguf = (source: ByteSource): GgufTable => {
  const c = new GgufCursor(source)
  const { path } = source
  const version = readMagic(c)
  const tensorCount = c.count("the tensor count")
  const pairCount = c.count("the metadata count")
  if (tensorCount * minTensorInfoBytes + pairCount * minPairBytes > c.remaining) {
    throw ggufError(
      "COUNT",
      path,
      `The header claims ${tensorCount} tensors and ${pairCount} metadata values, more than the file could hold.`,
      { tensorCount, pairCount },
    )
  }
  const metadata = new Map<string, GgufValue>()
  for (let i = 0; i < pairCount; i++) {
    const key = c.string(`metadata key ${i}`)
    if (key === "") throw ggufError("KEY", path, `Metadata key ${i} is empty.`)
    if (metadata.has(key)) throw ggufError("DUPLICATE", path, `The metadata key ${key} appears twice.`, { key })
    metadata.set(key, readValue(c, key))
  }
  const alignment = readAlignment(path, metadata)
  const infos: TensorInfo[] = []
  const names = new Set<string>()
  for (let i = 0; i < tensorCount; i++) {
    const info = readTensorInfo(c, i)
    if (names.has(info.name)) {
      throw ggufError("DUPLICATE", path, `Tensor ${info.name} is listed twice.`, { tensor: info.name })
    }
    names.add(info.name)
    infos.push(info)
  }
  const pad = (n: number): number => Math.ceil(n / alignment) * alignment
  const dataStart = pad(c.position)
  let expected = 0
  const tensors = infos.map((info): GgufTensorEntry => {
    if (info.offset !== expected) {
      throw ggufError(
        "OFFSET",
        path,
        `${info.name} lies at data offset ${info.offset} where ${expected} was due: tensors must follow one another.`,
        { tensor: info.name, offset: info.offset, expected },
      )
    }
    const end = dataStart + info.offset + info.bytes
    if (end > source.size) {
      throw ggufError("TRUNCATED", path, `${info.name} ends at byte ${end} but the file has ${source.size}.`, {
        tensor: info.name,
        size: source.size,
        needed: end,
      })
    }
    expected += pad(info.bytes)
    return {
      name: info.name,
      dtype: info.dtype,
      ggmlType: info.type,
      shape: info.shape,
      path,
      offset: dataStart + info.offset,
      bytes: info.bytes,
    }
  })
  return { files: [path], version, alignment, metadata, tensors }
}
