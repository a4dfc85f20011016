import { describe, expect, test } from "bun:test"
import * as fs from "node:fs"
import { isSlothError } from "@sloth/core"
import { ggmlTypes, ggufNumber, type GgufValue } from "./gguf-types.ts"
import { readGguf } from "./gguf.ts"
import { writeGguf, type GgufInput } from "./gguf-write.ts"
import { memoryByteSource } from "./internal/byte-source.ts"
import { parseGguf } from "./internal/gguf-parse.ts"
import { codeOf, realModelPath, temporaryFolder } from "../testing/files.ts"

const metadata: [string, GgufValue][] = [
  ["general.architecture", { type: "string", value: "llama" }],
  ["u8", { type: "u8", value: 255 }],
  ["i8", { type: "i8", value: -128 }],
  ["u16", { type: "u16", value: 65535 }],
  ["i16", { type: "i16", value: -32768 }],
  ["u32", { type: "u32", value: 4294967295 }],
  ["i32", { type: "i32", value: -2147483648 }],
  ["u64", { type: "u64", value: 18446744073709551615n }],
  ["i64", { type: "i64", value: -5 }],
  ["f32", { type: "f32", value: 0.5 }],
  ["f64", { type: "f64", value: Math.PI }],
  ["yes", { type: "bool", value: true }],
  ["texts", { type: "array", items: "string", value: ["", "é", "▁x"] }],
  ["numbers", { type: "array", items: "i32", value: [1, -2, 3] }],
  ["flags", { type: "array", items: "bool", value: [true, false] }],
]

const input = (name: string, dtype: string, shape: number[], bytes: number, fill: number): GgufInput => ({
  name,
  dtype,
  shape,
  data: new Uint8Array(bytes).fill(fill),
})

const tensors = [
  input("token_embd.weight", "Q4_1", [3, 64], 3 * 40, 1),
  input("norm.weight", "F32", [5], 20, 2),
  input("b", "BF16", [2, 3, 4], 48, 3),
]

const smallFile = async (): Promise<Uint8Array> => {
  using folder = temporaryFolder()
  const path = folder.file("a.gguf")
  await writeGguf(path, metadata, tensors)
  return fs.readFileSync(path)
}

/** A damaged copy: `find` bytes replaced by `put`. */
const patched = (bytes: Uint8Array, find: Buffer, put: Buffer, skip = 0): Uint8Array => {
  const copy = Buffer.from(bytes)
  const at = copy.indexOf(find)
  expect(at).toBeGreaterThanOrEqual(0)
  put.copy(copy, at + skip)
  return copy
}

const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4)
  b.writeUInt32LE(n)
  return b
}
const u64 = (n: bigint): Buffer => {
  const b = Buffer.alloc(8)
  b.writeBigUInt64LE(n)
  return b
}

describe("writing and reading", () => {
  test("gives back every value type, name, shape and byte", async () => {
    using folder = temporaryFolder()
    const path = folder.file("a.gguf")
    const { bytes } = await writeGguf(path, metadata, tensors)
    expect(fs.statSync(path).size).toBe(bytes)
    const table = readGguf(path)
    expect([...table.metadata]).toEqual(metadata)
    expect(table.tensors.map((t) => [t.name, t.dtype, t.ggmlType, t.shape, t.bytes])).toEqual([
      ["token_embd.weight", "Q4_1", 3, [3, 64], 120],
      ["norm.weight", "F32", 0, [5], 20],
      ["b", "BF16", 30, [2, 3, 4], 48],
    ])
    const file = fs.readFileSync(path)
    for (const [i, t] of table.tensors.entries()) {
      expect(t.offset % 32).toBe(0)
      expect(new Set(file.subarray(t.offset, t.offset + t.bytes))).toEqual(new Set([i + 1]))
    }
    const copy = folder.file("b.gguf")
    await writeGguf(
      copy,
      table.metadata,
      table.tensors.map((t) => ({ ...t, data: file.subarray(t.offset, t.offset + t.bytes) })),
    )
    expect(fs.readFileSync(copy).equals(file)).toBe(true)
  })

  test("version 2 has the same layout", async () => {
    const bytes = Buffer.from(await smallFile())
    bytes.writeUInt32LE(2, 4)
    expect(parseGguf(memoryByteSource(bytes)).version).toBe(2)
  })

  test("the block table knows each type once", () => {
    expect(new Set([...ggmlTypes.values()].map((t) => t.name)).size).toBe(ggmlTypes.size)
    expect(ggmlTypes.get(14)).toEqual({ id: 14, name: "Q6_K", blockSize: 256, blockBytes: 210 })
  })

  test("refuses input that the format cannot hold and leaves the previous file", async () => {
    using folder = temporaryFolder()
    const path = folder.file("a.gguf")
    await writeGguf(path, metadata, tensors)
    const before = fs.readFileSync(path)
    const write = (m: [string, GgufValue][], t: GgufInput[]) => codeOf(() => writeGguf(path, m, t))
    expect(await write([["a", { type: "u8", value: 256 }]], [])).toBe("SLOTH_GGUF_INPUT")
    expect(await write([["a", { type: "u32", value: 1.5 }]], [])).toBe("SLOTH_GGUF_INPUT")
    expect(await write([metadata[0]!, metadata[0]!], [])).toBe("SLOTH_GGUF_INPUT")
    expect(await write([], [tensors[0]!, tensors[0]!])).toBe("SLOTH_GGUF_INPUT")
    expect(await write([], [input("x".repeat(64), "F32", [1], 4, 0)])).toBe("SLOTH_GGUF_INPUT")
    expect(await write([], [input("x", "Q4_1", [33], 4, 0)])).toBe("SLOTH_GGUF_INPUT")
    expect(await write([], [input("x", "Q9_9", [32], 4, 0)])).toBe("SLOTH_GGUF_INPUT")
    expect(await write([], [input("x", "F32", [2], 4, 0)])).toBe("SLOTH_WRITE_LENGTH")
    expect(await write([], [input("x", "F32", [2 ** 48], 4, 0)])).toBe("SLOTH_DISK_SPACE")
    expect(fs.readFileSync(path).equals(before)).toBe(true)
    expect(fs.readdirSync(folder.path)).toEqual(["a.gguf"])
  })
})

describe("split files", () => {
  const write = async (
    folder: { file(name: string): string },
    no: number,
    names: string[],
    extra: [string, GgufValue][] = [],
    count = 2,
  ): Promise<string> => {
    const path = folder.file(`m-0000${no + 1}-of-00002.gguf`)
    const head: [string, GgufValue][] = [
      ["split.no", { type: "u16", value: no }],
      ["split.count", { type: "u16", value: count }],
      ["split.tensors.count", { type: "i32", value: 3 }],
    ]
    await writeGguf(
      path,
      [...extra, ...head],
      names.map((n) => input(n, "F32", [8], 32, no)),
    )
    return path
  }
  test("any part opens the whole, with the metadata of the first", async () => {
    using folder = temporaryFolder()
    const first = await write(folder, 0, ["a", "b"], metadata)
    const second = await write(folder, 1, ["c"])
    for (const path of [first, second]) {
      const table = readGguf(path)
      expect(table.files).toEqual([first, second])
      expect(table.tensors.map((t) => [t.name, t.path])).toEqual([
        ["a", first],
        ["b", first],
        ["c", second],
      ])
      expect(ggufNumber(table.metadata, "u8")).toBe(255)
    }
  })
  test("missing part, wrong number, repeated tensor, wrong total, foreign name", async () => {
    using folder = temporaryFolder()
    const first = await write(folder, 0, ["a", "b"])
    const code = () => codeOf(() => readGguf(first))
    expect(await code()).toBe("SLOTH_GGUF_SHARD")
    await write(folder, 1, ["c"], [], 3)
    expect(await code()).toBe("SLOTH_GGUF_SHARD")
    await write(folder, 1, ["b"])
    expect(await code()).toBe("SLOTH_GGUF_DUPLICATE")
    await write(folder, 1, ["c", "d"])
    expect(await code()).toBe("SLOTH_GGUF_SHARD")
    await write(folder, 1, ["c"])
    expect(await code()).toBe("none")
    fs.renameSync(first, folder.file("m.gguf"))
    expect(await codeOf(() => readGguf(folder.file("m.gguf")))).toBe("SLOTH_GGUF_SHARD")
  })
})

describe("bad files", () => {
  const code = (bytes: Uint8Array) => codeOf(() => parseGguf(memoryByteSource(bytes)))

  test("wrong magic, versions, counts", async () => {
    const bytes = await smallFile()
    const at = (offset: number, value: Buffer): Uint8Array => {
      const copy = Buffer.from(bytes)
      value.copy(copy, offset)
      return copy
    }
    expect(await code(at(0, Buffer.from("GGML")))).toBe("SLOTH_GGUF_MAGIC")
    expect(await code(at(4, u32(1)))).toBe("SLOTH_GGUF_VERSION")
    expect(await code(at(4, u32(0x03000000)))).toBe("SLOTH_GGUF_VERSION")
    expect(await code(at(8, u64(1n << 40n)))).toBe("SLOTH_GGUF_COUNT")
    expect(await code(at(8, u64(0xffffffffffffffffn)))).toBe("SLOTH_GGUF_COUNT")
    expect(await code(at(16, u64(1n << 33n)))).toBe("SLOTH_GGUF_COUNT")
    expect(await code(at(24, u64(1n << 50n)))).toBe("SLOTH_GGUF_TRUNCATED")
    expect(await code(at(24, u64(0n)))).not.toBe("none")
  })

  test("wrong types, lengths, dimensions and offsets", async () => {
    const bytes = await smallFile()
    const patch = (find: string, skip: number, put: Buffer) => code(patched(bytes, Buffer.from(find), put, skip))
    expect(await patch("yes", 3, u32(13))).toBe("SLOTH_GGUF_TYPE")
    expect(await patch("yes", 7, Buffer.of(2))).toBe("SLOTH_GGUF_VALUE")
    expect(await patch("numbers", 7 + 4, u32(9))).toBe("SLOTH_GGUF_TYPE")
    expect(await patch("numbers", 7 + 8, u64(1n << 30n))).toBe("SLOTH_GGUF_COUNT")
    expect(await patch("texts", 5 + 8, u64(1n << 62n))).toBe("SLOTH_GGUF_COUNT")
    const info = (skip: number, put: Buffer) => patch("norm.weight", 11 + skip, put)
    expect(await info(0, u32(5))).toBe("SLOTH_GGUF_DIMS")
    expect(await info(4, u64(0n))).toBe("SLOTH_GGUF_DIMS")
    expect(await info(4, u64(1n << 52n))).toBe("SLOTH_GGUF_DIMS")
    expect(await info(12, u32(5))).toBe("SLOTH_GGUF_TENSOR_TYPE")
    expect(await info(12, u32(2))).toBe("SLOTH_GGUF_DIMS")
    expect(await info(16, u64(64n))).toBe("SLOTH_GGUF_OFFSET")
    expect(await patch("i16", 0, Buffer.from("u16"))).toBe("SLOTH_GGUF_DUPLICATE")
    expect(await code(bytes.subarray(0, bytes.length - 32))).toBe("SLOTH_GGUF_TRUNCATED")
  })

  test("alignment must be a u32 power of two", async () => {
    const of = async (value: GgufValue): Promise<string> => {
      using folder = temporaryFolder()
      const path = folder.file("a.gguf")
      // The writer chooses the alignment itself, so the key is written under another name and patched.
      await writeGguf(path, [["general.alignmenT", value]], [])
      return code(patched(fs.readFileSync(path), Buffer.from("alignmenT"), Buffer.from("alignment")))
    }
    expect(await of({ type: "u32", value: 64 })).toBe("none")
    expect(await of({ type: "u32", value: 48 })).toBe("SLOTH_GGUF_ALIGNMENT")
    expect(await of({ type: "u32", value: 0 })).toBe("SLOTH_GGUF_ALIGNMENT")
    expect(await of({ type: "u64", value: 32 })).toBe("SLOTH_GGUF_ALIGNMENT")
  })

  test("every truncation and every flipped bit gives a coded error or a table inside the file", async () => {
    const bytes = await smallFile()
    let parsed = 0
    let longestRead = 0
    const check = (damaged: Uint8Array): void => {
      const source = memoryByteSource(damaged)
      const guarded = {
        ...source,
        read(target: Uint8Array, position: number) {
          longestRead = Math.max(longestRead, position + target.length - damaged.length)
          source.read(target, position)
        },
      }
      try {
        for (const t of parseGguf(guarded).tensors) expect(t.offset + t.bytes).toBeLessThanOrEqual(damaged.length)
        parsed++
      } catch (error) {
        if (!isSlothError(error)) throw error
        expect(error.code).toStartWith("SLOTH_GGUF_")
      }
    }
    for (let n = 0; n < bytes.length; n++) check(bytes.subarray(0, n))
    for (let i = 0; i < bytes.length * 8; i++) {
      const damaged = Uint8Array.from(bytes)
      damaged[i >> 3]! ^= 1 << (i & 7)
      check(damaged)
    }
    expect(parsed).toBeGreaterThan(0)
    expect(longestRead).toBeLessThanOrEqual(0)
  })

  test("missing file and directory", async () => {
    using folder = temporaryFolder()
    expect(await codeOf(() => readGguf(folder.file("no.gguf")))).toBe("SLOTH_FILE_NOT_FOUND")
    expect(await codeOf(() => readGguf(folder.path))).toBe("SLOTH_FILE_IS_DIRECTORY")
  })
})

const real = realModelPath()
describe.skipIf(real === undefined)("the SmolLM2 file (skipped without SLOTH_TEST_MODEL_GGUF)", () => {
  test("has its 272 tensors, its vocabulary, and is read quickly", () => {
    readGguf(real!)
    const start = performance.now()
    const table = readGguf(real!)
    const ms = performance.now() - start
    expect(table.tensors).toHaveLength(272)
    expect(table.metadata.get("tokenizer.ggml.tokens")?.value).toHaveLength(49152)
    expect(table.tensors.at(-1)!.offset + table.tensors.at(-1)!.bytes).toBeLessThanOrEqual(fs.statSync(real!).size)
    // The bar is 150 ms on a quiet machine; other work on the same cores is allowed for.
    expect(ms).toBeLessThan(600)
  })
})
