import { describe, expect, test } from "bun:test"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import { codeOf, temporaryFolder } from "../testing/files.ts"
import { vocabularies } from "../testing/golden/vocabularies.ts"
import { createTokenizer } from "./tokenizer-hf.ts"
import { trainTokenizer } from "./tokenizer-train.ts"

const { texts } = vocabularies()
const special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
interface Model {
  vocab: Record<string, number>
  merges: [string, string][]
}
const modelOf = (json: string): Model => (JSON.parse(json) as { model: Model }).model

/** The first merges of the library's own trainer, which takes neither size nor special tokens but makes the same choices in the same order. */
const libraryMerges = (corpus: string[]): [string, string][] => {
  using folder = temporaryFolder()
  const native = createRequire(import.meta.url)("tokenizers") as {
    Tokenizer: { fromString(json: string): { train(files: string[]): void; save(path: string): void } }
  }
  const untrained = JSON.parse(trainTokenizer([], { vocabSize: 256 })) as Record<string, unknown>
  const model = { type: "BPE", vocab: {}, merges: [] }
  const tokenizer = native.Tokenizer.fromString(JSON.stringify({ ...untrained, model }))
  fs.writeFileSync(folder.file("corpus.txt"), corpus.join("\n"))
  tokenizer.train([folder.file("corpus.txt")])
  tokenizer.save(folder.file("t.json"))
  return modelOf(fs.readFileSync(folder.file("t.json"), "utf8")).merges
}

describe("training", () => {
  test("joins the pairs that the library's trainer joins, in its order", () => {
    const lines = texts.map((t) => t.replaceAll(/[\r\n]/g, " ")).filter((t) => t !== "")
    // Lines keep their end in the library, so they do here.
    const ours = modelOf(
      trainTokenizer(
        lines.map((l, i) => (i === lines.length - 1 ? l : `${l}\n`)),
        { vocabSize: 256 + 300, minFrequency: 1 },
      ),
    ).merges
    expect(ours).toHaveLength(300)
    expect(ours).toEqual(libraryMerges(lines).slice(0, 300))
  })
  test("has the asked size, special tokens first, and loses no text", () => {
    const json = trainTokenizer(texts, { vocabSize: 500, specialTokens: special, minFrequency: 1 })
    const tokenizer = createTokenizer({ tokenizerJson: json })
    expect(tokenizer.vocabSize).toBe(500)
    expect(special.map((t) => tokenizer.tokenToId(t))).toEqual([0, 1, 2])
    for (const text of texts) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
    expect(tokenizer.encode("<|im_start|>x<|im_end|>")[0]).toBe(1)
    expect(tokenizer.encode("123")).toHaveLength(3)
    expect(tokenizer.encode(texts.join("\n")).length).toBeLessThan(Buffer.byteLength(texts.join("\n")) * 0.8)
  })
  test("is the same every time", () => {
    const options = { vocabSize: 400, specialTokens: special }
    expect(trainTokenizer(texts, options)).toBe(trainTokenizer([...texts], options))
  })
  test("stops where no pair is frequent enough", () => {
    expect(modelOf(trainTokenizer(["abc abd"], { vocabSize: 1000 })).merges).toEqual([["a", "b"]])
    expect(modelOf(trainTokenizer(["aaaa"], { vocabSize: 1000, minFrequency: 1 })).merges).toEqual([
      ["a", "a"],
      ["aa", "aa"],
    ])
    expect(modelOf(trainTokenizer(["x\n\n\ny", "x\n\n\nz"], { vocabSize: 300 })).merges).toContainEqual(["Ċ", "Ċ"])
  })
  test("refuses a vocabulary without room", async () => {
    const code = (vocabSize: number, specialTokens: string[]) =>
      codeOf(() => trainTokenizer(["x"], { vocabSize, specialTokens }))
    expect(await code(257, special)).toBe("SLOTH_TOKENIZER_TRAIN")
    expect(await code(300, ["a", "a"])).toBe("SLOTH_TOKENIZER_TRAIN")
    expect(await code(300, [""])).toBe("SLOTH_TOKENIZER_TRAIN")
  })
})
