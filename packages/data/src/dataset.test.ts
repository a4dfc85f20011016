import { describe, expect, test } from "bun:test"
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { byteTokenizer } from "../fixtures/byte-tokenizer.ts"
import { tempFolder } from "../fixtures/temp-folder.ts"
import { thrown } from "../fixtures/thrown.ts"
import { cachePath, readCache } from "./cache.ts"
import { CHATML_TEMPLATE } from "./chat-template.ts"
import { openDataset } from "./dataset.ts"
import type { DatasetOptions } from "./dataset.ts"
import { formatReport } from "./example.ts"

const folder = tempFolder()
const tokenizer = byteTokenizer({ chatTemplate: CHATML_TEMPLATE })
const row = (question: string, answer: string): string =>
  `${JSON.stringify({
    messages: [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ],
  })}\n`
const open = (path: string, options: Partial<DatasetOptions> = {}) => openDataset(path, { tokenizer, ...options })

describe("openDataset", () => {
  test("does everything in one go", async () => {
    const set = await open(folder.write("a.jsonl", row("hi", "yes") + row("more", "no")))
    expect(set.statement).toBe('Recognised 2 rows of conversations (messages): "messages".')
    expect(set.kind).toBe("messages")
    expect(set.examples.map((e) => e.row)).toEqual([0, 1])
    expect(set.preview.filter((p) => p.scored)).toEqual([{ text: "yes<|im_end|>", scored: true }])
    expect(formatReport(set.report)).toBe("2 rows -> 2 examples, 53 tokens (7 scored, 13.2 %), longest 27")
    expect(set.cache).toBe("off")
    expect(set.date).toBeUndefined()
  })

  test("takes rows in place of files", async () => {
    const set = await openDataset([{ text: "abc" }, { text: "de" }], { tokenizer })
    expect(set.examples).toHaveLength(2)
    const other = await openDataset([{ text: "abc" }, { text: "dX" }], { tokenizer })
    expect(other.contentHash).not.toBe(set.contentHash)
    expect((await thrown(() => openDataset([], { tokenizer }))).code).toBe("SLOTH_DATA_EMPTY")
  })

  test("holds rows out whole, however they were split", async () => {
    const rows = Array.from({ length: 20 }, (_, i) => ({ text: `${i} `.repeat(10) }))
    const set = await openDataset(rows, { tokenizer, maxLength: 8, overlong: "split", heldOut: 0.25, seed: 3 })
    const train = new Set(set.examples.map((e) => e.row))
    const heldOut = new Set(set.heldOut.map((e) => e.row))
    expect(heldOut.size).toBe(5)
    expect(train.size).toBe(15)
    expect([...train].some((r) => heldOut.has(r))).toBe(false)
    expect(set.examples.length + set.heldOut.length).toBe(set.report.examples)
  })

  test("counts faulty rows of both stages", async () => {
    const path = folder.write("bad.jsonl", row("a", "b") + row("", "b") + row("c", "d"))
    expect((await thrown(() => open(path))).what).toContain("bad.jsonl line 2")
    const set = await open(path, { onBadRow: "skip" })
    expect(set.report).toMatchObject({ rows: 3, examples: 2, skipped: 1 })
    expect(set.report.reasons[0]?.reason).toContain("line 2")
    expect(set.examples.map((e) => e.row)).toEqual([0, 2])
  })

  test("a template that prints the date is pinned to a day that is told", async () => {
    const template = `{{ strftime_now('%d %B %Y') }}\n${CHATML_TEMPLATE}`
    const path = folder.write("date.jsonl", row("a", "b"))
    const today = await open(path, { template })
    expect(today.date).toBe(new Date().toISOString().slice(0, 10))
    const pinned = await open(path, { template, date: "2026-05-04" })
    expect(pinned.preview[0]?.text).toStartWith("04 May 2026\n")
    expect(pinned.examplesHash).not.toBe(today.examplesHash)
    expect(pinned.contentHash).toBe(today.contentHash)
  })
})

describe("cache", () => {
  test("a second opening takes the examples from it, equal in every byte", async () => {
    const path = folder.write("c.jsonl", row("hi", "yes 🦥") + row("more", "no"))
    const cacheDir = folder.path("cache-a/deep")
    const first = await open(path, { cacheDir, heldOut: 1 })
    const second = await open(path, { cacheDir, heldOut: 1 })
    expect([first.cache, second.cache]).toEqual(["miss", "hit"])
    expect({ ...second, cache: "" }).toEqual({ ...first, cache: "" })
    expect(readdirSync(cacheDir)).toEqual([`${first.examplesHash}.examples`])
  })

  test("a copy of the file elsewhere is the same data; other content or options are not", async () => {
    const cacheDir = folder.path("cache-b")
    const content = row("a", "b") + row("c", "d")
    await open(folder.write("x/1.jsonl", content), { cacheDir })
    expect((await open(folder.write("x/2.jsonl", content), { cacheDir })).cache).toBe("hit")
    const misses: Partial<DatasetOptions>[] = [
      { mask: "all" },
      { maxLength: 25 },
      { maxLength: 25, overlong: "split" },
      { template: CHATML_TEMPLATE.replace("{% endfor %}", "!{% endfor %}") },
      { variables: { a: 1 } },
      { tokenizer: byteTokenizer({ chatTemplate: CHATML_TEMPLATE, words: ["user"] }) },
      { columns: { messages: "messages" } },
    ]
    for (const options of misses)
      expect((await open(folder.path("x/1.jsonl"), { cacheDir, ...options })).cache).toBe("miss")
    expect((await open(folder.write("x/3.jsonl", `${content}\n`), { cacheDir })).cache).toBe("miss")
  })

  test("any damage is found and mended", async () => {
    const path = folder.write("d.jsonl", row("a", "b") + row("c", "d"))
    const cacheDir = folder.path("cache-c")
    const first = await open(path, { cacheDir })
    const file = cachePath(cacheDir, first.examplesHash)
    const whole = readFileSync(file)
    const damaged: Uint8Array[] = [
      new Uint8Array(),
      whole.subarray(0, 30),
      whole.subarray(0, -1),
      Buffer.concat([whole, whole]),
    ]
    for (let at = 0; at < whole.length; at += 29) {
      const copy = Buffer.from(whole)
      copy[at] = (copy[at] as number) ^ 4
      damaged.push(copy)
    }
    for (const bytes of damaged) {
      writeFileSync(file, bytes)
      expect((await readCache(cacheDir, first.examplesHash)).status).toBe("corrupt")
    }
    const again = await open(path, { cacheDir })
    expect(again.cache).toBe("rebuilt")
    expect(again.examples).toEqual(first.examples)
    expect(readFileSync(file).equals(whole)).toBe(true)
    // a whole file under another key's name
    writeFileSync(cachePath(cacheDir, "0".repeat(64)), whole)
    expect(await readCache(cacheDir, "0".repeat(64))).toEqual({ status: "corrupt", reason: "it belongs to other data" })
  })

  test("a folder that cannot be written costs the cache, not the run", async () => {
    const path = folder.write("e.jsonl", row("a", "b"))
    const file = folder.write("not-a-folder", "")
    expect((await open(path, { cacheDir: file })).cache).toBe("unwritable")
    const readOnly = folder.path("read-only")
    mkdirSync(readOnly)
    chmodSync(readOnly, 0o500)
    const expected = process.getuid?.() === 0 ? "miss" : "unwritable"
    expect((await open(path, { cacheDir: readOnly })).cache).toBe(expected)
    chmodSync(readOnly, 0o700)
  })

  test("a variable that is a function has no key: nothing is kept", async () => {
    const path = folder.write("f.jsonl", row("a", "b"))
    expect((await open(path, { cacheDir: folder.path("cache-f"), variables: { f: () => 1 } })).cache).toBe("off")
  })
})

test("fifty thousand rows are prepared in seconds", async () => {
  const answer = "A fairly short answer to it. "
  const lines = Array.from({ length: 50_000 }, (_, i) => row(`Question ${i}?`, answer + i))
  const words = ["Question ", answer, "assistant", "user"]
  const fast = byteTokenizer({ chatTemplate: CHATML_TEMPLATE, words })
  const path = folder.write("many.jsonl", lines.join(""))
  const cacheDir = folder.path("cache-many")
  const start = performance.now()
  const set = await openDataset(path, { tokenizer: fast, cacheDir })
  expect(set.report).toMatchObject({ rows: 50_000, examples: 50_000 })
  expect(performance.now() - start).toBeLessThan(20_000)
  expect((await openDataset(path, { tokenizer: fast, cacheDir })).cache).toBe("hit")
}, 60_000)
