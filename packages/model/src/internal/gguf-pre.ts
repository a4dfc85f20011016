import { tokenizerError, type JsonNode } from "./tokenizer-json.ts"

/** How a byte-level tokenizer cuts text before merging, as GGUF names it in `tokenizer.ggml.pre`. */
export interface PreRule {
  /** All names with this behaviour; the first is written on export. */
  readonly names: readonly string[]
  readonly preTokenizer: JsonNode
  /** A piece that is a token is taken whole, whatever the merges say. */
  readonly ignoreMerges: boolean
  /** Default of `add_bos_token` where the file does not say. */
  readonly addBos: boolean
  /** The models of this name compose characters first; GGUF cannot say so. */
  readonly nfc: boolean
}

const split = (...patterns: string[]): JsonNode => ({
  type: "Sequence",
  pretokenizers: [
    ...patterns.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false })),
    { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
  ],
})

const gpt2ByteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true }

/** The GPT-2 expression: contractions, words, numbers, other, spaces. It is built into the library's ByteLevel. */
const gpt2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
/** The cl100k expression with a rule for digits. */
const cl100k = (digits: string): string =>
  String.raw`${contractions}|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
const lead = String.raw`[^\r\n\p{L}\p{N}]?`
/** The o200k expression: case changes inside a word are borders. */
const o200k = (suffix: string, digits: string): string =>
  String.raw`${lead}${upper}*${lower}+${suffix}|${lead}${upper}+${lower}*${suffix}|${digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`

const cjk = "[一-龥぀-ゟ゠-ヿ]+"
const asciiPunctuation = String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${"`"}{|}~]`
const deepseek = String.raw`${asciiPunctuation}[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
const words = String.raw` ?[^(\s|.,!?…。，、।۔،)]+`

const rule = (
  names: readonly string[],
  preTokenizer: JsonNode,
  options: { ignoreMerges?: boolean; addBos?: boolean; nfc?: boolean } = {},
): PreRule => ({
  names,
  preTokenizer,
  ignoreMerges: options.ignoreMerges ?? false,
  addBos: options.addBos ?? false,
  nfc: options.nfc ?? false,
})

const sequence = (...pretokenizers: JsonNode[]): JsonNode => ({ type: "Sequence", pretokenizers })

/**
 * Every `tokenizer.ggml.pre` that is understood.
 *
 * **Source**: llama.cpp `src/llama-vocab.cpp` (names, defaults); expressions in the spelling of the models' own tokenizer.json where that is known.
 */
export const preRules: readonly PreRule[] = [
  rule(
    ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
    sequence({ type: "Digits", individual_digits: true }, gpt2ByteLevel),
  ),
  rule(
    [
      "gpt-2",
      "phi-2",
      "mpt",
      "olmo",
      "jais",
      "trillion",
      "granite-docling",
      "exaone4",
      "modern-bert",
      "mellum",
      "gigachat",
      "a.x-4.0",
      "jina-es",
      "jina-de",
      "jina-v2-es",
      "jina-v2-de",
    ],
    gpt2ByteLevel,
  ),
  rule(
    ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
    split(cl100k(String.raw`\p{N}{1,3}`)),
    { ignoreMerges: true, addBos: true },
  ),
  rule(["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], split(cl100k(String.raw`\p{N}{1,3}`))),
  rule(["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"], split(cl100k(String.raw`\p{N}`)), { nfc: true }),
  rule(["stablelm2", "hunyuan", "solar-open", "grok-2"], split(cl100k(String.raw`\p{N}`))),
  rule(
    ["qwen35"],
    split(
      String.raw`${contractions}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    ),
    { nfc: true },
  ),
  rule(["minicpm5"], split(String.raw`\p{N}{1,3}`, cl100k(String.raw`\p{N}+`)), { ignoreMerges: true }),
  rule(["laguna"], split(String.raw`[^\n]+|[\n]+`, cl100k(String.raw`\p{N}`))),
  rule(
    ["seed-coder"],
    split(
      String.raw`${contractions}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`,
    ),
  ),
  rule(
    ["bailingmoe", "bailingmoe2", "llada-moe"],
    split(
      String.raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`,
    ),
  ),
  rule(
    ["exaone-moe"],
    split(
      String.raw`${contractions}|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`,
    ),
  ),
  rule(["tekken"], split(o200k("", String.raw`\p{N}`)), { ignoreMerges: true, addBos: true }),
  rule(
    ["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
    split(o200k(`${contractions}?`, String.raw`\p{N}{1,3}`)),
  ),
  rule(
    ["tiny_aya", "cohere2moe"],
    split(String.raw`\d{1,3}(?=(?:\d{3})*\b)`, o200k(`${contractions}?`, String.raw`\p{N}{1,3}`)),
  ),
  rule(["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], split(String.raw`\p{N}{1,3}`, cjk, deepseek)),
  rule(
    ["deepseek-coder"],
    split(String.raw`[\r\n]`, String.raw`\s?\p{L}+`, String.raw`\s?\p{P}+`, "[一-龥ࠀ-一가-퟿]+", String.raw`\p{N}`),
  ),
  rule(["falcon"], split(String.raw`[\p{P}\$\+<=>\^~\|${"`"}]+`, gpt2, "[0-9][0-9][0-9]")),
  rule(["bloom", "poro-chat", "gpt3-finnish"], split(words)),
  rule(["viking"], split(words, String.raw`\p{N}`)),
  rule(["default"], split(String.raw`[\p{P}\$\+<=>\^~\|]+`, gpt2, String.raw`\p{N}+`, "[0-9][0-9][0-9]")),
]

const byName = new Map(preRules.flatMap((r) => r.names.map((name) => [name, r] as const)))

/** All understood names, sorted. */
export const preNames = (): string[] => [...byName.keys()].sort()

/** The rule of a name. Absent means "default", as llama.cpp takes it. */
export const preRule = (name: string | undefined): PreRule => {
  const found = byName.get(name ?? "default")
  if (found !== undefined) return found
  throw tokenizerError(
    "PRE",
    `The pre-tokenizer "${name}" (tokenizer.ggml.pre) is not known.`,
    `Known: ${preNames().join(", ")}. Use the model's safetensors release with its tokenizer.json instead.`,
    { pre: name, known: preNames() },
  )
}

/** Puts one pre-tokenizer stage into a spelling in which equal behaviour has equal text. */
const spell = (node: JsonNode): string[] => {
  switch (node.type) {
    case "ByteLevel":
      if (node["add_prefix_space"] === true) return ["?prefix"]
      return node["use_regex"] === false ? [] : [gpt2]
    case "Digits":
      return [node["individual_digits"] === true ? String.raw`\p{N}` : String.raw`\p{N}+`]
    case "Split": {
      const pattern = node["pattern"] as { Regex?: string; String?: string } | undefined
      const { behavior, invert } = node
      // "Removed" and inverted keeps the matches, which is the same where the expression covers all text.
      const keeps = behavior === "Isolated" || (behavior === "Removed" && invert === true)
      if (!keeps || pattern?.Regex === undefined) return ["?split"]
      return [
        pattern.Regex.replaceAll("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", contractions)
          .replaceAll("\r", String.raw`\r`)
          .replaceAll("\n", String.raw`\n`),
      ]
    }
    default:
      return [`?${node.type}`]
  }
}

const signature = (stages: readonly JsonNode[]): string => JSON.stringify(stages.flatMap(spell))

const stagesOf = (node: JsonNode): readonly JsonNode[] =>
  node.type === "Sequence" ? (node["pretokenizers"] as readonly JsonNode[]) : [node]

/** The GGUF name of a byte-level pre-tokenizer, or undefined where there is none with this behaviour. */
export const detectPre = (
  stages: readonly JsonNode[],
  ignoreMerges: boolean,
  normalizers: readonly JsonNode[],
): string | undefined => {
  const nfc = normalizers.length === 1 && normalizers[0]!.type === "NFC"
  if (normalizers.length > 0 && !nfc) return undefined
  const wanted = signature(stages)
  const matching = preRules.filter((r) => signature(stagesOf(r.preTokenizer)) === wanted)
  // The expression decides; among names with the same one, that with the same side rules.
  const agreement = (r: PreRule): number => Number(r.ignoreMerges === ignoreMerges) * 2 + Number(r.nfc === nfc)
  return matching.sort((a, b) => agreement(b) - agreement(a))[0]?.names[0]
}
