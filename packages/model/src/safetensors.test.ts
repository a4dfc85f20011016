import { describe, expect, test } from "bun:test"
import * as fs from "node:fs"
import { isSlothError } from "@sloth/core"
import { memoryByteSource } from "./internal/byte-source.ts"
import { codeOf, temporaryFolder } from "../testing/files.ts"
import { parseSafetensors } from "./internal/safetensors-parse.ts"
import { readSafetensors } from "./safetensors.ts"
import { writeSafetensors, writeSafetensorsFolder, type SafetensorsInput } from "./safetensors-write.ts"

const tensor = (name: string, shape: number[], fill: number, dtype = "F32"): SafetensorsInput => {
  const bytes = shape.reduce((a, b) => a * b, 1) * (dtype === "F32" ? 4 : 2)
  return { name, dtype, shape, bytes, data: new Uint8Array(bytes).fill(fill) }
}

const bytesOf = (entry: { path: string; offset: number; bytes: number }): Uint8Array =>
  new Uint8Array(fs.readFileSync(entry.path).subarray(entry.offset, entry.offset + entry.bytes))

/** A file from a header text and data bytes, however wrong. */
const file = (header: string, data: number, headerBytes = Buffer.byteLength(header)): Uint8Array => {
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(headerBytes))
  return Buffer.concat([prefix, Buffer.from(header), Buffer.alloc(data)])
}

const parseCode = (bytes: Uint8Array): Promise<string> => codeOf(() => parseSafetensors(memoryByteSource(bytes)))

describe("writing and reading", () => {
  test("gives back names, shapes, metadata and bytes", async () => {
    using folder = temporaryFolder()
    const path = folder.file("a.safetensors")
    await writeSafetensors(path, [tensor("a", [2, 3], 1), tensor("b", [5], 2, "BF16"), tensor("empty", [0, 4], 0)], {
      note: "é",
    })
    const table = readSafetensors(path)
    expect(table.metadata).toEqual({ format: "pt", note: "é" })
    expect(table.tensors.map((t) => [t.name, t.dtype, t.shape, t.bytes])).toEqual([
      ["a", "F32", [2, 3], 24],
      ["b", "BF16", [5], 10],
      ["empty", "F32", [0, 4], 0],
    ])
    expect(bytesOf(table.tensors[1]!)).toEqual(new Uint8Array(10).fill(2))
    expect(table.tensors[0]!.offset % 8).toBe(0)
    expect(fs.readdirSync(folder.path)).toEqual(["a.safetensors"])
  })

  test("streams chunks from functions", async () => {
    using folder = temporaryFolder()
    const path = folder.file("a.safetensors")
    async function* chunks() {
      for (let i = 0; i < 6; i++) yield new Uint8Array(700_001).fill(i)
    }
    const bytes = 6 * 700_001
    await writeSafetensors(path, [
      { name: "big", dtype: "U8", shape: [bytes], bytes, data: chunks },
      { name: "later", dtype: "U8", shape: [3], bytes: 3, data: async () => Uint8Array.of(7, 8, 9) },
    ])
    const [big, later] = readSafetensors(path).tensors
    const read = bytesOf(big!)
    expect(Array.from({ length: 6 }, (_, i) => read[i * 700_001 + 350_000])).toEqual([0, 1, 2, 3, 4, 5])
    expect(bytesOf(later!)).toEqual(Uint8Array.of(7, 8, 9))
  })

  test("shards by size, writes the index, and replaces an earlier single file", async () => {
    using folder = temporaryFolder()
    await writeSafetensorsFolder(folder.path, [tensor("old", [4], 9)])
    expect(fs.readdirSync(folder.path)).toEqual(["model.safetensors"])
    const tensors = Array.from({ length: 5 }, (_, i) => tensor(`layer.${i}`, [10], i))
    const report = await writeSafetensorsFolder(folder.path, tensors, { maxShardBytes: 80 })
    expect(report.totalBytes).toBe(200)
    expect(fs.readdirSync(folder.path).sort()).toEqual([
      "model-00001-of-00003.safetensors",
      "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors",
      "model.safetensors.index.json",
    ])
    const table = readSafetensors(folder.path)
    expect(table.files).toHaveLength(3)
    for (const [i, t] of table.tensors.entries()) expect(bytesOf(t)).toEqual(new Uint8Array(40).fill(i))
    expect(readSafetensors(folder.file("model.safetensors.index.json")).tensors).toEqual(table.tensors)

    fs.rmSync(folder.file("model-00002-of-00003.safetensors"))
    expect(await codeOf(() => readSafetensors(folder.path))).toBe("SLOTH_SAFETENSORS_SHARD")
  })

  test("refuses an index that reaches outside its folder or lies about a shard", async () => {
    using folder = temporaryFolder()
    await writeSafetensors(folder.file("x.safetensors"), [tensor("a", [1], 0)])
    const index = (map: unknown): Promise<string> => {
      fs.writeFileSync(folder.file("i.json"), JSON.stringify({ weight_map: map }))
      return codeOf(() => readSafetensors(folder.file("i.json")))
    }
    expect(await index({ a: "../x.safetensors" })).toBe("SLOTH_SAFETENSORS_INDEX")
    expect(await index({ b: "x.safetensors" })).toBe("SLOTH_SAFETENSORS_INDEX")
    expect(await index({})).toBe("SLOTH_SAFETENSORS_INDEX")
    expect(await index({ a: "x.safetensors" })).toBe("none")
  })
})

describe("a failing write leaves the previous file", () => {
  const attempt = async (input: SafetensorsInput): Promise<string> => {
    using folder = temporaryFolder()
    const path = folder.file("a.safetensors")
    await writeSafetensors(path, [tensor("a", [1], 5)])
    const before = fs.readFileSync(path)
    const code = await codeOf(() => writeSafetensors(path, [tensor("first", [1000], 1), input]))
    expect(fs.readFileSync(path).equals(before)).toBe(true)
    expect(fs.readdirSync(folder.path)).toEqual(["a.safetensors"])
    return code
  }
  test("more than the disk holds, told before writing", async () => {
    const bytes = 2 ** 50
    let asked = false
    const data = () => {
      asked = true
      return new Uint8Array(0)
    }
    expect(await attempt({ name: "x", dtype: "U8", shape: [bytes], bytes, data })).toBe("SLOTH_DISK_SPACE")
    expect(asked).toBe(false)
  })
  test("the disk fills while writing", async () => {
    const data = () => {
      throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" })
    }
    expect(await attempt({ name: "x", dtype: "U8", shape: [4], bytes: 4, data })).toBe("SLOTH_DISK_FULL")
  })
  test("a source that gives too little", async () => {
    const data = () => new Uint8Array(3)
    expect(await attempt({ name: "x", dtype: "U8", shape: [4], bytes: 4, data })).toBe("SLOTH_WRITE_LENGTH")
  })
  test("a shape that does not match, an unknown dtype, a name twice", async () => {
    const data = new Uint8Array(4)
    expect(await attempt({ name: "x", dtype: "U8", shape: [5], bytes: 4, data })).toBe("SLOTH_SAFETENSORS_INPUT")
    expect(await attempt({ name: "x", dtype: "Q4", shape: [4], bytes: 4, data })).toBe("SLOTH_SAFETENSORS_INPUT")
    expect(await attempt(tensor("first", [1], 0))).toBe("SLOTH_SAFETENSORS_DUPLICATE")
  })
})

describe("bad files", () => {
  const good = `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}`
  const cases: [name: string, bytes: Uint8Array, code: string][] = [
    ["empty", new Uint8Array(0), "SLOTH_SAFETENSORS_TRUNCATED"],
    ["header longer than the file", file(good, 12, 5000), "SLOTH_SAFETENSORS_TRUNCATED"],
    ["header of exabytes", file(good, 12, 2 ** 60), "SLOTH_SAFETENSORS_HEADER"],
    ["not JSON", file(good.replace("{", "["), 12), "SLOTH_SAFETENSORS_HEADER"],
    ["not an object", file("[1,2]", 0), "SLOTH_SAFETENSORS_HEADER"],
    ["data cut", file(good, 11), "SLOTH_SAFETENSORS_OFFSETS"],
    ["data too long", file(good, 13), "SLOTH_SAFETENSORS_TRUNCATED"],
    ["gap", file(good.replace("[8,12]", "[9,13]"), 13), "SLOTH_SAFETENSORS_OFFSETS"],
    ["overlap", file(good.replace("[8,12]", "[4,8]"), 12), "SLOTH_SAFETENSORS_OFFSETS"],
    ["backwards", file(good.replace("[8,12]", "[12,8]"), 12), "SLOTH_SAFETENSORS_OFFSETS"],
    ["shape too large", file(good.replace("[4]", "[5]"), 12), "SLOTH_SAFETENSORS_SHAPE"],
    ["absurd shape", file(good.replace("[4]", "[9007199254740991,9007199254740991]"), 12), "SLOTH_SAFETENSORS_SHAPE"],
    ["negative shape", file(good.replace("[4]", "[-4]"), 12), "SLOTH_SAFETENSORS_SHAPE"],
    ["fractional offset", file(good.replace("[8,12]", "[8,12.5]"), 12), "SLOTH_SAFETENSORS_OFFSETS"],
    ["unknown dtype", file(good.replace("U8", "Q8"), 12), "SLOTH_SAFETENSORS_DTYPE"],
    ["inherited dtype", file(good.replace("U8", "toString"), 12), "SLOTH_SAFETENSORS_DTYPE"],
    ["name twice", file(good.replace('"b"', '"a"'), 12), "SLOTH_SAFETENSORS_DUPLICATE"],
    ["name twice, escaped", file(good.replace('"b"', '"\\u0061"'), 12), "SLOTH_SAFETENSORS_DUPLICATE"],
    ["metadata not text", file(`{"__metadata__":{"a":1}}`, 0), "SLOTH_SAFETENSORS_HEADER"],
  ]
  for (const [name, bytes, code] of cases) {
    test(name, async () => expect(await parseCode(bytes)).toBe(code))
  }
  test("the undamaged one is read", async () => expect(await parseCode(file(good, 12))).toBe("none"))

  test("every truncation and every flipped bit gives a coded error or a table inside the file", () => {
    const bytes = file(good, 12)
    const check = (damaged: Uint8Array): void => {
      try {
        for (const t of parseSafetensors(memoryByteSource(damaged)).tensors) {
          expect(t.offset + t.bytes).toBeLessThanOrEqual(damaged.length)
        }
      } catch (error) {
        if (!isSlothError(error)) throw error
        expect(error.code).toStartWith("SLOTH_SAFETENSORS_")
      }
    }
    for (let n = 0; n < bytes.length; n++) check(bytes.subarray(0, n))
    for (let i = 0; i < bytes.length * 8; i++) {
      const damaged = Uint8Array.from(bytes)
      damaged[i >> 3]! ^= 1 << (i & 7)
      check(damaged)
    }
  })

  test("missing file, directory without weights, directory for a file", async () => {
    using folder = temporaryFolder()
    expect(await codeOf(() => readSafetensors(folder.file("no.safetensors")))).toBe("SLOTH_FILE_NOT_FOUND")
    expect(await codeOf(() => readSafetensors(folder.path))).toBe("SLOTH_SAFETENSORS_NONE")
    fs.mkdirSync(folder.file("model.safetensors"))
    expect(await codeOf(() => readSafetensors(folder.path))).toBe("SLOTH_FILE_IS_DIRECTORY")
  })
})
