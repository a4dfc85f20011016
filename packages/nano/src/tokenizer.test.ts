import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { CHATML_TEMPLATE, compileChatTemplate } from "@sloth/data"
import { loadTokenizerFolder } from "@sloth/model"
import { nanoFiles } from "./files.ts"
import { documentKey, generateCorpus } from "./generate/corpus.ts"

const folder = nanoFiles().model
const tokenizer = loadTokenizerFolder(folder)

describe("nano's tokenizer", () => {
  test("has 2048 ids, the special ones first", () => {
    expect(tokenizer.vocabSize).toBe(2048)
    expect(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map((t) => tokenizer.tokenToId(t))).toEqual([0, 1, 2])
    expect(tokenizer.endOfGeneration.has(2)).toBe(true)
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, number>
    expect(config["vocab_size"]).toBe(2048)
    expect(config["eos_token_id"]).toBe(2)
  })

  test("gives every text back", () => {
    let characters = 0
    let tokens = 0
    for (const d of generateCorpus({ seed: 9, rows: 1500 })) {
      const text = documentKey(d)
      const ids = tokenizer.encode(text)
      expect(tokenizer.decode(ids)).toBe(text)
      characters += text.length
      tokens += ids.length
    }
    expect(characters / tokens).toBeGreaterThan(2.8)
    for (const text of [
      "",
      " ",
      "\n\n",
      "  two  spaces ",
      "Ünïcödé 🦥 日本語 ∑",
      "tab\there",
      "it's we'll I'M",
      "x".repeat(300),
      "\u0000\u007f",
    ])
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
  })

  test("splits digits one by one", () => {
    const ids = tokenizer.encode("12 + 345 = 357")
    expect(ids.map((i) => tokenizer.decode([i])).filter((t) => /\d/.test(t))).toEqual([
      "1",
      "2",
      "3",
      "4",
      "5",
      "3",
      "5",
      "7",
    ])
  })

  test("renders conversations with one id for each mark", () => {
    expect(tokenizer.chatTemplate).toBe(CHATML_TEMPLATE)
    const text = compileChatTemplate(tokenizer.chatTemplate as string).render([{ role: "user", content: "Hello!" }], {
      addGenerationPrompt: true,
    })
    expect(text).toBe("<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n")
    const ids = tokenizer.encode(text)
    expect(ids.filter((i) => i === 1).length).toBe(2)
    expect(ids.filter((i) => i === 2).length).toBe(1)
    expect(ids.length).toBeLessThan(14)
  })
})
