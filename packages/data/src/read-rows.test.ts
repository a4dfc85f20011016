import { describe, expect, test } from "bun:test"
import { chmodSync } from "node:fs"
import { gzipSync } from "node:zlib"
import { tempFolder } from "../fixtures/temp-folder.ts"
import { thrown } from "../fixtures/thrown.ts"
import { createReaderRegistry } from "./reader.ts"
import type { DatasetReader } from "./reader.ts"
import { readRows } from "./read-rows.ts"

const folder = tempFolder()
const rowsOf = async (name: string, content: string | Uint8Array) =>
  (await readRows(folder.write(name, content))).map(({ row, line }) => ({ row, line }))

describe("jsonl", () => {
  test("skips blank lines, keeps line numbers, takes a byte order mark and Windows line ends", async () => {
    expect(await rowsOf("a.jsonl", '\ufeff{"text":"one"}\r\n\r\n   \r\n{"text":"zwölf 🦥"}')).toEqual([
      { row: { text: "one" }, line: 1 },
      { row: { text: "zwölf 🦥" }, line: 4 },
    ])
  })

  test("reads a gzip file, and lines and characters that straddle read chunks", async () => {
    const text = "ü🦥".repeat(300_000)
    const content = `${JSON.stringify({ text })}\n${JSON.stringify({ text: "end" })}\n`
    const plain = await rowsOf("big.jsonl", content)
    expect(plain).toEqual([
      { row: { text }, line: 1 },
      { row: { text: "end" }, line: 2 },
    ])
    expect(await rowsOf("big.jsonl.gz", gzipSync(content))).toEqual(plain)
  })

  test("names the line of broken JSON", async () => {
    const error = await thrown(() => rowsOf("b.jsonl", '{"text":"a"}\n\n{"text": oops}\n'))
    expect(error.code).toBe("SLOTH_DATA_JSON")
    expect(error.fields).toMatchObject({ line: 3 })
    expect(error.message).toContain("b.jsonl line 3")
  })

  test("a pretty-printed document named .jsonl is told apart from a broken line", async () => {
    const error = await thrown(() => rowsOf("c.jsonl", '[\n  {"text": "a"}\n]\n'))
    expect(error.next).toContain("name it .json")
  })
})

describe("json", () => {
  test("takes a list, or a list under data, rows or train", async () => {
    const expected = [{ row: { text: "x" }, line: undefined }]
    expect(await rowsOf("a.json", '[{"text":"x"}]')).toEqual(expected)
    for (const key of ["data", "rows", "train"]) {
      expect(await rowsOf("k.json", `{"version":1,"${key}":[{"text":"x"}]}`)).toEqual(expected)
    }
  })

  test("refuses other shapes and broken text", async () => {
    expect((await thrown(() => rowsOf("d.json", '{"text":"x"}'))).code).toBe("SLOTH_DATA_JSON_SHAPE")
    expect((await thrown(() => rowsOf("e.json", "[{"))).code).toBe("SLOTH_DATA_JSON")
  })
})

describe("text", () => {
  test("a form feed ends a document; without one a file is one document", async () => {
    expect(await rowsOf("a.txt", "first\r\nline\f\nsecond\n\f \n\fthird")).toEqual([
      { row: { text: "first\nline" }, line: 1 },
      { row: { text: "second\n" }, line: 3 },
      { row: { text: "third" }, line: 5 },
    ])
    expect(await rowsOf("b.md", "# Title\n\nBody\n")).toEqual([{ row: { text: "# Title\n\nBody\n" }, line: 1 }])
  })
})

describe("tables", () => {
  test("csv with quotes, commas and line ends in cells; tsv", async () => {
    const csv = '\ufeffprompt,completion\r\n"a, ""b""","line one\r\nline two"\r\n\r\nc,d\r\n'
    const rows = await rowsOf("a.csv", csv)
    expect(rows.map((r) => r.row)).toEqual([
      { prompt: 'a, "b"', completion: "line one\nline two" },
      { prompt: "c", completion: "d" },
    ])
    expect(rows[1]?.line).toBe(5)
    expect((await rowsOf("a.tsv", "text\tnote\nhi, you\t1\n")).map((r) => r.row)).toEqual([
      { text: "hi, you", note: "1" },
    ])
  })

  test("names the line of a row with too many cells", async () => {
    const error = await thrown(() => rowsOf("b.csv", "text\none\ntwo,three\n"))
    expect(error.code).toBe("SLOTH_DATA_CSV")
    expect(error.fields).toMatchObject({ line: 3 })
  })
})

describe("files", () => {
  test("several files of several formats, in order, with their names", async () => {
    const paths = [folder.write("m/2.jsonl", '{"text":"a"}'), folder.write("m/1.txt", "b")]
    expect((await readRows(paths)).map(({ row, file }) => [row, file])).toEqual([
      [{ text: "a" }, paths[0]],
      [{ text: "b" }, paths[1]],
    ])
  })

  test("each unusable file has its code", async () => {
    const codeOf = async (run: () => unknown) => (await thrown(run)).code
    expect(await codeOf(() => readRows([]))).toBe("SLOTH_DATA_NO_FILES")
    expect(await codeOf(() => readRows(folder.path("none.jsonl")))).toBe("SLOTH_DATA_NOT_FOUND")
    expect(await codeOf(() => rowsOf("empty.jsonl", "\n \n"))).toBe("SLOTH_DATA_EMPTY")
    expect(await codeOf(() => rowsOf("empty.json", ""))).toBe("SLOTH_DATA_EMPTY")
    expect(await codeOf(() => rowsOf("empty.csv", "text\n"))).toBe("SLOTH_DATA_EMPTY")
    expect(await codeOf(() => rowsOf("data.bin", "x"))).toBe("SLOTH_DATA_UNKNOWN_FORMAT")
    expect(await codeOf(() => rowsOf("latin1.txt", Uint8Array.of(0x67, 0xfc, 0x6e)))).toBe("SLOTH_DATA_ENCODING")
    expect(await codeOf(() => rowsOf("cut.txt", Uint8Array.of(0x67, 0xc3)))).toBe("SLOTH_DATA_ENCODING")
    const utf16 = await thrown(() => rowsOf("utf16.jsonl", Uint8Array.of(0xff, 0xfe, 0x7b, 0)))
    expect(utf16.message).toContain("UTF-16")
    expect(await codeOf(() => rowsOf("no.jsonl.gz", "plain"))).toBe("SLOTH_DATA_GZIP")
    const whole = gzipSync(JSON.stringify({ text: "x".repeat(5000) }))
    expect(await codeOf(() => rowsOf("cut.jsonl.gz", whole.subarray(0, -12)))).toBe("SLOTH_DATA_GZIP")
  })

  test("a folder is refused with the files it holds", async () => {
    folder.write("set/train.jsonl", "{}")
    const error = await thrown(() => readRows(folder.path("set")))
    expect(error.code).toBe("SLOTH_DATA_IS_DIRECTORY")
    expect(error.next).toContain("train.jsonl")
  })

  test.skipIf(process.getuid?.() === 0 || process.platform === "win32")("a file without permission", async () => {
    const path = folder.write("secret.jsonl", "{}")
    chmodSync(path, 0)
    expect((await thrown(() => readRows(path))).code).toBe("SLOTH_DATA_UNREADABLE")
  })
})

describe("registry", () => {
  const lines: DatasetReader = {
    name: "lines",
    extensions: [".lst"],
    async *read(path) {
      yield { row: { text: path.slice(-5) }, line: 1 }
    },
  }

  test("a plugin's reader is found by ending and by name", async () => {
    const registry = createReaderRegistry([lines])
    expect((await readRows(folder.write("x.LST", ""), { registry })).map((r) => r.row)).toEqual([{ text: "x.LST" }])
    expect((await readRows(folder.write("y.bin", ""), { registry, format: "lines" })).length).toBe(1)
  })

  test("unknown names and doubled endings are refused", async () => {
    const path = folder.write("z.jsonl", "{}")
    expect((await thrown(() => readRows(path, { format: "nope" }))).message).toContain("jsonl, json, text")
    expect((await thrown(() => createReaderRegistry([{ ...lines, extensions: [".CSV"] }]))).code).toBe(
      "SLOTH_DATA_DUPLICATE_READER",
    )
    expect((await thrown(() => createReaderRegistry([lines, lines]))).code).toBe("SLOTH_DATA_DUPLICATE_READER")
  })
})
