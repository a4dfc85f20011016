import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { join } from "node:path"
import { codeOf, realModelPath, temporaryFolder } from "../testing/files.ts"
import { byteLevelMetadata, sentencePieceMetadata, vocabularies } from "../testing/golden/vocabularies.ts"
import type { GgufValue } from "./gguf-types.ts"
import { writeGguf } from "./gguf-write.ts"
import { readGguf } from "./gguf.ts"
import { tokenizerToGgufMetadata } from "./tokenizer-gguf-export.ts"
import { ggufPreNames, tokenizerFromGguf } from "./tokenizer-gguf.ts"
import { createTokenizer } from "./tokenizer-hf.ts"
import { trainTokenizer } from "./tokenizer-train.ts"
import type { Tokenizer } from "./tokenizer.ts"

const golden = JSON.parse(fs.readFileSync(join(import.meta.dirname, "../testing/golden/golden.json"), "utf8")) as {
  pre: Record<string, string[]>
  sentencePiece: Record<string, string[]>
  smollm2: { tokens: number; ids: number[][] }
}
const { texts, sentencePiece } = vocabularies()
const digest = (ids: readonly number[]): string => createHash("sha256").update(ids.join(",")).digest("hex").slice(0, 8)

/**
 * Texts on which llama.cpp itself leaves the models' expressions: it has no marks in the upper and lower case classes, reads wide spaces as one ASCII
 * control character, and has its own idea of a class with a category. Here the models' tokenizer.json is followed.
 */
const llamaCppDiffers: Record<string, string> = {
  "gpt-4o": "नमस्ते दुनिया",
  llama4: "नमस्ते दुनिया",
  kanana2: "नमस्ते दुनिया",
  talkie: "नमस्ते दुनिया",
  "minimax-m2": "नमस्ते दुनिया",
  tekken: "नमस्ते दुनिया",
  tiny_aya: "ALLCAPS CamelCase snake_case mixedCASE",
  cohere2moe: "ALLCAPS CamelCase snake_case mixedCASE",
  "deepseek-coder": "\u00a0\u2003\u3000 x",
}

describe("ids equal those of llama.cpp", () => {
  test("every pre-tokenizer name has its golden ids", () => {
    expect(Object.keys(golden.pre).sort()).toEqual(ggufPreNames())
  })
  for (const name of ggufPreNames()) {
    test(`pre-tokenizer ${name}`, () => {
      const tokenizer = tokenizerFromGguf(byteLevelMetadata(name))
      for (const [i, text] of texts.entries()) {
        if (text === llamaCppDiffers[name]) continue
        expect([text, digest(tokenizer.encode(text))]).toEqual([text, golden.pre[name]![i]!])
      }
    })
  }
  for (const prefix of [true, false]) {
    test(`SentencePiece, ${prefix ? "with" : "without"} a space in front`, () => {
      const tokenizer = tokenizerFromGguf(sentencePieceMetadata(prefix))
      for (const [i, text] of sentencePiece.plain.entries()) {
        const ids = tokenizer.encode(text)
        expect([text, digest(ids)]).toEqual([text, golden.sentencePiece[String(prefix)]![i]!])
        if (prefix) expect(ids).toEqual([...sentencePiece.ids[i]!])
        // The mark for a space is read back as a space, whoever wrote it.
        expect(tokenizer.decode(ids)).toBe(text.replaceAll("▁", " "))
      }
    })
  }
})

const real = realModelPath()
describe.skipIf(real === undefined)("the SmolLM2 file (skipped without SLOTH_TEST_MODEL_GGUF)", () => {
  test("gives llama.cpp's ids, its template and its end tokens", () => {
    const tokenizer = tokenizerFromGguf(readGguf(real!).metadata)
    expect(tokenizer.vocabSize).toBe(golden.smollm2.tokens)
    for (const [i, text] of texts.entries()) {
      expect([text, tokenizer.encode(text)]).toEqual([text, golden.smollm2.ids[i]!])
    }
    expect(tokenizer.special).toEqual({ bos: 1, eos: 2, pad: 2, unk: 0 })
    expect([...tokenizer.endOfGeneration].sort()).toEqual([0, 2])
    expect(tokenizer.addBos).toBe(false)
    expect(tokenizer.chatTemplate).toContain("<|im_start|>")
    expect(tokenizerToGgufMetadata(tokenizer).get("tokenizer.ggml.pre")?.value).toBe("smollm")
    const again = createTokenizer({ ...tokenizer.files })
    expect(tokenizerToGgufMetadata(again).get("tokenizer.ggml.pre")?.value).toBe("smollm")
    expect(again.encode(texts.join("\n"))).toEqual(tokenizer.encode(texts.join("\n")))
  })
})

const sameBehaviour = (a: Tokenizer, b: Tokenizer): void => {
  expect(b.vocabSize).toBe(a.vocabSize)
  expect(b.special).toEqual(a.special)
  expect([...b.endOfGeneration].sort()).toEqual([...a.endOfGeneration].sort())
  expect(b.addBos).toBe(a.addBos)
  expect(b.chatTemplate).toBe(a.chatTemplate!)
  for (const text of texts) {
    const ids = a.encode(text, { addSpecialTokens: true })
    expect([text, b.encode(text, { addSpecialTokens: true })]).toEqual([text, ids])
    expect(b.decode(ids)).toBe(a.decode(ids))
    expect(b.decode(ids, { skipSpecialTokens: true })).toBe(a.decode(ids, { skipSpecialTokens: true }))
  }
}

describe("tokenizer.json to GGUF and back", () => {
  const trained = trainTokenizer(texts, {
    vocabSize: 400,
    specialTokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
  })
  test("through a file", async () => {
    using folder = temporaryFolder()
    const tokenizer = createTokenizer({
      tokenizerJson: trained,
      tokenizerConfig: { eos_token: "<|im_end|>", bos_token: "<|endoftext|>", pad_token: "<|endoftext|>" },
      chatTemplate: "{{ messages }}",
    })
    const path = folder.file("v.gguf")
    const metadata = tokenizerToGgufMetadata(tokenizer)
    expect(metadata.get("tokenizer.ggml.pre")?.value).toBe("smollm")
    await writeGguf(path, metadata, [])
    const back = tokenizerFromGguf(readGguf(path).metadata)
    sameBehaviour(tokenizer, back)
    expect([...tokenizerToGgufMetadata(back)]).toEqual([...metadata])
    sameBehaviour(tokenizer, createTokenizer({ ...back.files, generationConfig: { eos_token_id: [2] } }))
  })
  for (const pre of [
    "llama-bpe",
    "qwen2",
    "qwen35",
    "gpt-2",
    "tekken",
    "gpt-4o",
    "deepseek-v3",
    "dbrx",
    "default",
    "falcon",
  ]) {
    test(`${pre} is found again from the definition`, () => {
      const source = tokenizerFromGguf(
        new Map([...byteLevelMetadata(pre), ["tokenizer.ggml.add_bos_token", { type: "bool", value: true }]]),
      )
      const fromJson = createTokenizer({ ...source.files })
      expect(fromJson.addBos).toBe(true)
      const metadata = tokenizerToGgufMetadata(fromJson)
      expect(metadata.get("tokenizer.ggml.pre")?.value).toBe(pre)
      sameBehaviour(fromJson, tokenizerFromGguf(metadata))
    })
  }
  for (const prefix of [true, false]) {
    test(`SentencePiece, ${prefix ? "with" : "without"} a space in front`, () => {
      const fromJson = createTokenizer({ ...tokenizerFromGguf(sentencePieceMetadata(prefix)).files })
      const metadata = tokenizerToGgufMetadata(fromJson)
      expect(metadata.get("tokenizer.ggml.model")?.value).toBe("llama")
      expect(metadata.get("tokenizer.ggml.add_space_prefix")?.value).toBe(prefix)
      expect(metadata.get("tokenizer.ggml.token_type")?.value).toEqual(sentencePiece.types)
      sameBehaviour(fromJson, tokenizerFromGguf(metadata))
    })
  }
  test("rows beyond the vocabulary are filled, fewer are refused", async () => {
    const tokenizer = createTokenizer({ tokenizerJson: trained })
    const metadata = tokenizerToGgufMetadata(tokenizer, { vocabRows: tokenizer.vocabSize + 2 })
    expect((metadata.get("tokenizer.ggml.tokens")!.value as string[]).slice(-2)).toEqual([
      `[PAD${tokenizer.vocabSize}]`,
      `[PAD${tokenizer.vocabSize + 1}]`,
    ])
    expect((metadata.get("tokenizer.ggml.token_type")!.value as number[]).slice(-2)).toEqual([5, 5])
    expect(await codeOf(() => tokenizerToGgufMetadata(tokenizer, { vocabRows: 10 }))).toBe("SLOTH_TOKENIZER_ROWS")
  })
  test("a way of cutting without a name needs one from the user", async () => {
    const json = JSON.parse(trained) as Record<string, unknown>
    const odd = createTokenizer({
      tokenizerJson: JSON.stringify({
        ...json,
        pre_tokenizer: { type: "ByteLevel", add_prefix_space: true, use_regex: true, trim_offsets: true },
      }),
    })
    expect(await codeOf(() => tokenizerToGgufMetadata(odd))).toBe("SLOTH_TOKENIZER_PRE_UNKNOWN")
    expect(tokenizerToGgufMetadata(odd, { pre: "gpt-2" }).get("tokenizer.ggml.pre")?.value).toBe("gpt-2")
  })
  test("what was read from GGUF is given back as it was", () => {
    const metadata = new Map([
      ...byteLevelMetadata("starcoder"),
      ["tokenizer.ggml.fim_pre_token_id", { type: "u32", value: 3 }] as const,
    ])
    const back = tokenizerToGgufMetadata(tokenizerFromGguf(metadata))
    expect([...back]).toEqual([...metadata].filter(([key]) => key.startsWith("tokenizer.")))
  })
})

describe("bad metadata", () => {
  const code = (change: [string, GgufValue | undefined], from = byteLevelMetadata("gpt-2")) => {
    const metadata = new Map(from)
    if (change[1] === undefined) metadata.delete(change[0])
    else metadata.set(change[0], change[1])
    return codeOf(() => tokenizerFromGguf(metadata))
  }
  test("each has its code", async () => {
    expect(await code(["tokenizer.ggml.tokens", undefined])).toBe("SLOTH_TOKENIZER_MISSING")
    expect(await code(["tokenizer.ggml.merges", undefined])).toBe("SLOTH_TOKENIZER_GGUF")
    expect(await code(["tokenizer.ggml.merges", { type: "array", items: "string", value: ["ab"] }])).toBe(
      "SLOTH_TOKENIZER_GGUF",
    )
    expect(await code(["tokenizer.ggml.token_type", { type: "array", items: "i32", value: [1] }])).toBe(
      "SLOTH_TOKENIZER_GGUF",
    )
    expect(await code(["tokenizer.ggml.tokens", { type: "array", items: "string", value: ["a", "a"] }])).toBe(
      "SLOTH_TOKENIZER_GGUF",
    )
    expect(await code(["tokenizer.ggml.model", { type: "string", value: "bert" }])).toBe("SLOTH_TOKENIZER_GGUF_MODEL")
    expect(await code(["tokenizer.ggml.scores", undefined], sentencePieceMetadata(true))).toBe("SLOTH_TOKENIZER_GGUF")
    expect(await code(["tokenizer.ggml.pre", undefined])).toBe("none")
  })
  test("an unknown pre-tokenizer lists the known ones", () => {
    expect(() => tokenizerFromGguf(byteLevelMetadata("martian"))).toThrow(/"martian".*Known: .*llama-bpe.*smollm/)
  })
})
