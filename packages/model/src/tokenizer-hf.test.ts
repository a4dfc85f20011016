import { describe, expect, test } from "bun:test"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import { vocabularies, byteLevelMetadata, sentencePieceMetadata } from "../testing/golden/vocabularies.ts"
import { codeOf, temporaryFolder } from "../testing/files.ts"
import { tokenizerFromGguf } from "./tokenizer-gguf.ts"
import { createTokenizer, loadTokenizerFolder, type HfTokenizer } from "./tokenizer-hf.ts"
import { trainTokenizer } from "./tokenizer-train.ts"

interface NativeEncoding {
  getIds(): number[]
  getOffsets(): [number, number][]
}
interface Native {
  encode(text: string, pair: null, options: { addSpecialTokens: boolean }): Promise<NativeEncoding>
  decode(ids: number[], skip: boolean): Promise<string>
}
const { Tokenizer: NativeTokenizer } = createRequire(import.meta.url)("tokenizers") as {
  Tokenizer: { fromString(json: string): Native }
}

const { texts } = vocabularies()
const long = Array.from({ length: 400 }, (_, i) => texts[(i * 7) % texts.length]).join(" ")

type Definition = Record<string, unknown>
const base = (): Definition =>
  JSON.parse(tokenizerFromGguf(byteLevelMetadata("gpt-2")).files.tokenizerJson) as Definition
const spm = (prefix: boolean): Definition =>
  JSON.parse(tokenizerFromGguf(sentencePieceMetadata(prefix)).files.tokenizerJson) as Definition
const vocab = (base()["model"] as { vocab: Record<string, number> }).vocab
const size = Object.keys(vocab).length
/** Added tokens as the library numbers them: the id of the vocab, or the next free one. */
const addedTokens = (...tokens: [content: string, flags: Definition][]): Definition[] => {
  let next = size
  return tokens.map(([content, flags]) => added(vocab[content] ?? next++, content, flags))
}
const added = (id: number, content: string, flags: Definition): Definition => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: false,
  ...flags,
})

const definitions: [name: string, definition: Definition][] = [
  ["byte-level", base()],
  ["NFC", { ...base(), normalizer: { type: "NFC" } }],
  [
    "NFKC and lower case",
    { ...base(), normalizer: { type: "Sequence", normalizers: [{ type: "NFKC" }, { type: "Lowercase" }] } },
  ],
  [
    "space put in front",
    { ...base(), pre_tokenizer: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true } },
  ],
  ["SentencePiece with prefix", spm(true)],
  ["SentencePiece without prefix", spm(false)],
  [
    "Metaspace, first only",
    {
      ...spm(true),
      normalizer: null,
      pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: false },
    },
  ],
  [
    "Metaspace, always, cut",
    {
      ...spm(true),
      normalizer: null,
      pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    },
  ],
  [
    "added tokens with every flag",
    {
      ...base(),
      normalizer: { type: "Lowercase" },
      added_tokens: addedTokens(
        ["<|im_start|>", { special: true, rstrip: true }],
        ["<|im_end|>", { special: true, lstrip: true }],
        ["world", { single_word: true }],
        ["MIXEDcase", { normalized: true }],
        ["ll", { normalized: true, single_word: true }],
        ["<|im", {}],
      ),
    },
  ],
  [
    "SentencePiece with a normalized added token",
    {
      ...spm(true),
      added_tokens: [...(spm(true)["added_tokens"] as Definition[]), added(900, "Hello", { normalized: true })],
    },
  ],
  [
    "unknown token, words with suffix",
    {
      ...base(),
      pre_tokenizer: { type: "WhitespaceSplit" },
      decoder: { type: "BPEDecoder", suffix: "</w>" },
      added_tokens: [],
      model: {
        type: "BPE",
        unk_token: "?",
        fuse_unk: true,
        end_of_word_suffix: "</w>",
        vocab: { "?": 0, a: 1, b: 2, "b</w>": 3, "ab</w>": 4, l: 5, "l</w>": 6, o: 7, "o</w>": 8, lo: 9 },
        merges: ["a b</w>", "l o"],
      },
    },
  ],
]

describe("ids, offsets and text equal those of the library", () => {
  for (const [name, definition] of definitions) {
    test(name, async () => {
      const json = JSON.stringify(definition)
      const ours = createTokenizer({ tokenizerJson: json })
      const library = NativeTokenizer.fromString(json)
      for (const text of [...texts, long, "lo ab olo abx"]) {
        const want = (await library.encode(text, null, { addSpecialTokens: false })).getIds()
        expect([text, ours.encode(text)]).toEqual([text, want])
        expect(ours.encodeWithOffsets(text).ids).toEqual(want)
        expect(ours.decode(want)).toBe(await library.decode(want, false))
        expect(ours.decode(want, { skipSpecialTokens: true })).toBe(await library.decode(want, true))
      }
    })
  }

  for (const [name, definition] of definitions) {
    // Composing and trimming are excepted: the library gives a composed character only its first mark, and leaves spaces out.
    if (/NFC|NFKC|put in front|cut|suffix/.test(name)) continue
    test(`offsets: ${name}`, async () => {
      const json = JSON.stringify({ ...definition, post_processor: null })
      const ours = createTokenizer({ tokenizerJson: json })
      const library = NativeTokenizer.fromString(json)
      for (const text of texts) {
        const chars = (units: number): number => Array.from(text.slice(0, units)).length
        const got = ours.encodeWithOffsets(text).offsets.map(([s, e]) => [chars(s), chars(e)])
        expect([text, got]).toEqual([
          text,
          (await library.encode(text, null, { addSpecialTokens: false })).getOffsets(),
        ])
      }
    })
  }
})

describe("offsets", () => {
  const cover = (tokenizer: HfTokenizer, text: string): void => {
    const { offsets } = tokenizer.encodeWithOffsets(text)
    let reached = 0
    for (const [start, end] of offsets) {
      expect(start).toBeLessThanOrEqual(reached)
      expect(end).toBeLessThanOrEqual(text.length)
      expect(end).toBeGreaterThanOrEqual(start)
      reached = Math.max(reached, end)
    }
    expect([text, reached]).toEqual([text, text.length])
  }
  test("cover every unit of the text in order", () => {
    for (const [name, definition] of definitions.slice(0, 7)) {
      void name
      const tokenizer = createTokenizer({ tokenizerJson: JSON.stringify(definition) })
      for (const text of texts) cover(tokenizer, text)
      cover(tokenizer, "e\u0301cole a\u0300\u0301 \u1112\u1161\u11ab ﬁ ① İ")
    }
  })
  test("are UTF-16 units: tokens of one emoji share its range", () => {
    const tokenizer = createTokenizer({ tokenizerJson: trainTokenizer([], { vocabSize: 256 }) })
    expect(tokenizer.encodeWithOffsets("a😀b").offsets).toEqual([
      [0, 1],
      [1, 3],
      [1, 3],
      [1, 3],
      [1, 3],
      [3, 4],
    ])
  })
  test("a lone surrogate is read as the replacement character and keeps its place", () => {
    const tokenizer = createTokenizer({ tokenizerJson: JSON.stringify(base()) })
    expect(tokenizer.encode("a\ud800b")).toEqual(tokenizer.encode("a\ufffdb"))
    expect(tokenizer.encodeWithOffsets("a\ud800b").offsets.at(-1)).toEqual([2, 3])
  })
})

describe("streaming", () => {
  for (const [name, definition] of definitions) {
    test(`pieces add up to the whole text: ${name}`, () => {
      const tokenizer = createTokenizer({ tokenizerJson: JSON.stringify(definition) })
      for (const text of [...texts, long]) {
        for (const skipSpecialTokens of [false, true]) {
          const ids = tokenizer.encode(text)
          const decoder = tokenizer.streamDecoder({ skipSpecialTokens })
          const pieces = ids.map((id) => decoder.push(id))
          pieces.push(decoder.end())
          expect(pieces.join("")).toBe(tokenizer.decode(ids, { skipSpecialTokens }))
        }
      }
    })
  }
  test("an unfinished character is held back until it is whole", () => {
    const bytes = createTokenizer({ tokenizerJson: trainTokenizer([], { vocabSize: 256 }) })
    const decoder = bytes.streamDecoder()
    expect(bytes.encode("é😀").map((id) => decoder.push(id))).toEqual(["", "é", "", "", "", "😀"])
    const half = bytes.streamDecoder()
    expect(half.push(bytes.encode("😀")[0]!)).toBe("")
    expect(half.end()).toBe("\ufffd")
    const fallback = createTokenizer({ tokenizerJson: JSON.stringify(spm(false)) })
    const ids = fallback.encode("\u{10ffff}")
    expect(ids).toHaveLength(4)
    const stream = fallback.streamDecoder()
    expect(ids.map((id) => stream.push(id))).toEqual(["", "", "", "\u{10ffff}"])
  })
})

describe("special tokens and configuration", () => {
  const template = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<|endoftext|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<|endoftext|>": { id: "<|endoftext|>", ids: [0], tokens: ["<|endoftext|>"] } },
  }
  const json = JSON.stringify({ ...base(), post_processor: template })
  test("bos comes from the template, and the configuration may refuse it", () => {
    const asTemplate = createTokenizer({ tokenizerJson: json, tokenizerConfig: { bos_token: "<|endoftext|>" } })
    expect(asTemplate.addBos).toBe(true)
    expect(asTemplate.encode("x", { addSpecialTokens: true })).toEqual([0, ...asTemplate.encode("x")])
    const refused = createTokenizer({
      tokenizerJson: json,
      tokenizerConfig: { bos_token: { content: "<|endoftext|>" }, add_bos_token: false },
    })
    expect(refused.addBos).toBe(false)
    expect(refused.encode("x", { addSpecialTokens: true })).toEqual(refused.encode("x"))
    const without = createTokenizer({
      tokenizerJson: JSON.stringify(base()),
      tokenizerConfig: { bos_token: "<|endoftext|>" },
    })
    expect(without.addBos).toBe(false)
  })
  test("generation ends at what the files name and at end-of-turn tokens", () => {
    const t = createTokenizer({
      tokenizerJson: JSON.stringify(base()),
      tokenizerConfig: { eos_token: "<|im_end|>", pad_token: "<|endoftext|>" },
      generationConfig: { eos_token_id: [2, 17] },
    })
    expect(t.special).toEqual({ eos: 2, pad: 0 })
    expect([...t.endOfGeneration].sort((a, b) => a - b)).toEqual([0, 2, 17])
  })
  test("harmony's <|end|> closes a message, not the answer", () => {
    const of = (names: string[]) =>
      createTokenizer({
        tokenizerJson: JSON.stringify({
          ...base(),
          added_tokens: addedTokens(...names.map((n) => [n, { special: true }] as [string, Definition])),
        }),
      }).endOfGeneration
    expect([...of(["<|end|>"])]).toEqual([size])
    expect([...of(["<|end|>", "<|return|>", "<|call|>"])]).toEqual([size + 1, size + 2])
  })
  test("the fingerprint follows the definition and the template", () => {
    const a = createTokenizer({ tokenizerJson: json })
    expect(createTokenizer({ tokenizerJson: json }).fingerprint).toBe(a.fingerprint)
    expect(createTokenizer({ tokenizerJson: json, chatTemplate: "x" }).fingerprint).not.toBe(a.fingerprint)
    expect(createTokenizer({ tokenizerJson: JSON.stringify(base()) }).fingerprint).not.toBe(a.fingerprint)
    expect(a.fingerprint).toMatch(/^[0-9a-f]{64}$/)
  })
})

describe("files", () => {
  test("a folder's configuration, generation ids and template are read", () => {
    using folder = temporaryFolder()
    fs.writeFileSync(folder.file("tokenizer.json"), JSON.stringify(base()))
    fs.writeFileSync(folder.file("tokenizer_config.json"), JSON.stringify({ eos_token: "<|im_end|>" }))
    fs.writeFileSync(folder.file("generation_config.json"), JSON.stringify({ eos_token_id: 9 }))
    fs.writeFileSync(folder.file("chat_template.json"), JSON.stringify({ chat_template: "from json" }))
    expect(loadTokenizerFolder(folder.path).chatTemplate).toBe("from json")
    const named = [
      { name: "tool_use", template: "t" },
      { name: "default", template: "from config" },
    ]
    fs.writeFileSync(
      folder.file("tokenizer_config.json"),
      JSON.stringify({ eos_token: "<|im_end|>", chat_template: named }),
    )
    expect(loadTokenizerFolder(folder.path).chatTemplate).toBe("from config")
    fs.writeFileSync(folder.file("chat_template.jinja"), "from file")
    const tokenizer = loadTokenizerFolder(folder.path)
    expect(tokenizer.chatTemplate).toBe("from file")
    expect(tokenizer.special.eos).toBe(2)
    expect(tokenizer.endOfGeneration.has(9)).toBe(true)
    expect(tokenizer.tokenToId("<|im_end|>")).toBe(2)
    expect(tokenizer.idToToken(2)).toBe("<|im_end|>")
    expect(tokenizer.idToToken(1e9)).toBeUndefined()
  })
  test("bad ones are named", async () => {
    using folder = temporaryFolder()
    expect(await codeOf(() => loadTokenizerFolder(folder.path))).toBe("SLOTH_TOKENIZER_MISSING")
    const code = (definition: unknown) =>
      codeOf(() =>
        createTokenizer({
          tokenizerJson: typeof definition === "string" ? definition : JSON.stringify(definition),
        }).encode("Hello"),
      )
    expect(await code("{")).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code([])).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code({ model: { type: "Unigram", vocab: [] } })).toBe("SLOTH_TOKENIZER_MODEL")
    const model = base()["model"] as Definition
    expect(await code({ ...base(), model: { ...model, vocab: { a: -1 } } })).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code({ ...base(), model: { ...model, vocab: { a: 2 ** 31 } } })).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code({ ...base(), model: { ...model, merges: ["a"] } })).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code({ ...base(), model: { ...model, merges: [["no such", "token"]] } })).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code({ ...base(), added_tokens: [{ id: 1 }] })).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code({ ...base(), added_tokens: [added(7, "<new>", {})] })).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code({ ...base(), pre_tokenizer: { type: "Nothing" } })).toBe("SLOTH_TOKENIZER_JSON")
    expect(await code(base())).toBe("none")
  })
})
