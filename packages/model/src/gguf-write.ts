import { SlothError } from "@sloth/core"
import { ggmlTypeByName, ggufScalarIds, type GgufScalarType, type GgufValue } from "./gguf-types.ts"
import { writeAtomic, writeTensorData } from "./internal/atomic-write.ts"
import type { TensorData } from "./tensor-table.ts"

/** One tensor to write: GGML type name and row-major shape; its length in bytes follows from both. */
export interface GgufInput {
  readonly name: string
  /** GGML type name: `F32`, `BF16`, `Q8_0`, ... */
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data: TensorData
}

const ranges: Partial<Record<GgufScalarType, readonly [bigint, bigint]>> = {
  u8: [0n, 255n],
  i8: [-128n, 127n],
  u16: [0n, 65535n],
  i16: [-32768n, 32767n],
  u32: [0n, 4294967295n],
  i32: [-2147483648n, 2147483647n],
  u64: [0n, 18446744073709551615n],
  i64: [-9223372036854775808n, 9223372036854775807n],
}

const inputError = (what: string, fields: Record<string, unknown>): SlothError =>
  new SlothError("SLOTH_GGUF_INPUT", { what, next: "Nothing was written.", fields })

/** Growing little-endian output for the header. */
class HeaderWriter {
  private buffer = Buffer.alloc(1 << 16)
  length = 0

  private room(count: number): number {
    const at = this.length
    if (at + count > this.buffer.length) {
      const grown = Buffer.alloc(Math.max(this.buffer.length * 2, at + count))
      this.buffer.copy(grown, 0, 0, at)
      this.buffer = grown
    }
    this.length = at + count
    return at
  }

  u32(n: number): void {
    const at = this.room(4)
    this.buffer.writeUInt32LE(n, at)
  }

  u64(n: number): void {
    const at = this.room(8)
    this.buffer.writeBigUInt64LE(BigInt(n), at)
  }

  string(text: string): void {
    const bytes = Buffer.from(text)
    this.u64(bytes.length)
    const at = this.room(bytes.length)
    bytes.copy(this.buffer, at)
  }

  scalar(type: GgufScalarType, value: unknown, key: string): void {
    const fail = (): SlothError => inputError(`${key}: ${String(value)} is not a ${type}.`, { key, type })
    if (type === "string") {
      if (typeof value !== "string") throw fail()
      this.string(value)
      return
    }
    if (type === "bool") {
      if (typeof value !== "boolean") throw fail()
      const at = this.room(1)
      this.buffer[at] = value ? 1 : 0
      return
    }
    if (type === "f32" || type === "f64") {
      if (typeof value !== "number") throw fail()
      const at = this.room(type === "f32" ? 4 : 8)
      if (type === "f32") this.buffer.writeFloatLE(value, at)
      else this.buffer.writeDoubleLE(value, at)
      return
    }
    const range = ranges[type]!
    if (typeof value !== "bigint" && !Number.isInteger(value)) throw fail()
    const n = BigInt(value as number | bigint)
    if (n < range[0] || n > range[1]) throw fail()
    const size = type.endsWith("64") ? 8 : type.endsWith("32") ? 4 : type.endsWith("16") ? 2 : 1
    const at = this.room(size)
    if (size === 8) this.buffer.writeBigUInt64LE(BigInt.asUintN(64, n), at)
    else this.buffer.writeUIntLE(Number(BigInt.asUintN(size * 8, n)), at, size)
  }

  value(entry: GgufValue, key: string): void {
    if (entry.type !== "array") {
      this.u32(ggufScalarIds[entry.type])
      this.scalar(entry.type, entry.value, key)
      return
    }
    this.u32(9)
    this.u32(ggufScalarIds[entry.items])
    this.u64(entry.value.length)
    for (const item of entry.value) this.scalar(entry.items, item, key)
  }

  raw(text: string): void {
    const at = this.room(text.length)
    this.buffer.write(text, at, "latin1")
  }

  padTo(alignment: number): void {
    this.room((alignment - (this.length % alignment)) % alignment)
  }

  finish(): Buffer {
    return this.buffer.subarray(0, this.length)
  }
}

const tensorBytes = (t: GgufInput): number => {
  const type = ggmlTypeByName(t.dtype)
  const fields = { tensor: t.name, dtype: t.dtype, shape: t.shape }
  if (type === undefined) throw inputError(`${t.name} has the unknown GGML type ${t.dtype}.`, fields)
  if (t.shape.length > 4 || !t.shape.every((n) => Number.isSafeInteger(n) && n > 0)) {
    throw inputError(`${t.name} has the shape [${t.shape.join(", ")}]; GGUF has 1 to 4 positive dimensions.`, fields)
  }
  const row = t.shape.at(-1) ?? 1
  if (row % type.blockSize !== 0) {
    throw inputError(`${t.name}: rows of ${row} do not divide into ${t.dtype} blocks of ${type.blockSize}.`, fields)
  }
  const nameBytes = Buffer.byteLength(t.name)
  if (nameBytes === 0 || nameBytes > 63) {
    throw inputError(`The tensor name ${t.name} has ${nameBytes} bytes; 1 to 63 are allowed.`, fields)
  }
  return (t.shape.reduce((a, b) => a * b, 1) / type.blockSize) * type.blockBytes
}

/**
 * Writes a GGUF version 3 file, whole or not at all: space check, temporary name, sync, rename. Tensor data is streamed.
 *
 * **Errors**: `SLOTH_GGUF_INPUT`, `SLOTH_DISK_SPACE`, `SLOTH_DISK_FULL`, `SLOTH_FILE_*`, `SLOTH_WRITE_LENGTH`. The previous file survives them all.
 * **Source**: ggml `docs/gguf.md`; the data of every tensor is padded to the alignment of 32 bytes.
 */
export const writeGguf = async (
  path: string,
  metadata: Iterable<readonly [key: string, value: GgufValue]>,
  tensors: Iterable<GgufInput>,
): Promise<{ readonly bytes: number }> => {
  const alignment = 32
  // The writer decides the alignment, so a copied header must not name another.
  const pairs = [...metadata].filter(([key]) => key !== "general.alignment")
  const list = [...tensors]
  const keys = new Set<string>()
  for (const [key] of pairs) {
    if (key === "" || keys.has(key))
      throw inputError(`The metadata key ${JSON.stringify(key)} is empty or given twice.`, { key })
    keys.add(key)
  }
  const names = new Set<string>()
  const w = new HeaderWriter()
  w.raw("GGUF")
  w.u32(3)
  w.u64(list.length)
  w.u64(pairs.length)
  for (const [key, value] of pairs) {
    w.string(key)
    w.value(value, key)
  }
  const pad = (n: number): number => Math.ceil(n / alignment) * alignment
  let dataBytes = 0
  const sizes: number[] = []
  for (const t of list) {
    const bytes = tensorBytes(t)
    if (names.has(t.name)) throw inputError(`Tensor ${t.name} was given twice.`, { tensor: t.name })
    names.add(t.name)
    w.string(t.name)
    w.u32(t.shape.length)
    for (const n of [...t.shape].reverse()) w.u64(n)
    w.u32(ggmlTypeByName(t.dtype)!.id)
    w.u64(dataBytes)
    sizes.push(bytes)
    dataBytes += pad(bytes)
  }
  w.padTo(alignment)
  const header = w.finish()
  const total = header.length + dataBytes
  await writeAtomic(path, total, async (sink) => {
    await sink.write(header)
    for (const [i, t] of list.entries()) {
      const bytes = sizes[i]!
      await writeTensorData(sink, t.name, bytes, t.data, path)
      await sink.zeros(pad(bytes) - bytes)
    }
  })
  return { bytes: total }
}
