import type { SpecialTokens } from "../tokenizer.ts"
import type { AddedTokenJson, TokenizerJson } from "./tokenizer-json.ts"
import { flatten } from "./tokenizer-json.ts"

/** Texts of tokens that end a turn or a document in the models that are about. Source: llama.cpp `src/llama-vocab.cpp`, end-of-generation list. */
const endTexts: readonly string[] = [
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|flush|>",
  "<|calls|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "</s>",
  "<|eom_id|>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<|end_of_text|>",
  "<end_of_utterance>",
  "<eos>",
  "<turn|>",
  "<|tool_response>",
  "<｜end▁of▁sentence｜>",
  "[e~[",
]

/**
 * The ids that end a generation: those named, and added tokens whose text says so. A plain piece such as Qwen's `</s>` is only text.
 */
export const endOfGenerationByText = (added: readonly AddedTokenJson[], alsoNamed: Iterable<number>): Set<number> => {
  const ids = new Set<number>(alsoNamed)
  const byContent = new Map(added.map((t) => [t.content, t.id]))
  const idOf = (text: string): number | undefined => byContent.get(text)
  const found = new Set<string>()
  for (const text of endTexts) {
    const id = idOf(text)
    if (id === undefined) continue
    ids.add(id)
    found.add(text)
  }
  const drop = (text: string): void => {
    const id = idOf(text)
    if (id !== undefined) ids.delete(id)
  }
  // In the harmony and Solar formats <|end|> closes a message, not the answer; Gemma 4 has </s> as plain text.
  const call = found.has("<|call|>") || found.has("<|calls|>")
  if (call && (found.has("<|return|>") || found.has("<|flush|>"))) drop("<|end|>")
  if (found.has("<|tool_response>")) drop("</s>")
  return ids
}

/** True where llama.cpp treats a token as one that ends generation by its text alone. */
export const isEndText = (text: string): boolean => endTexts.includes(text)

const tokenText = (value: unknown): string | undefined => {
  if (typeof value === "string") return value
  const content = (value as { content?: unknown } | null | undefined)?.content
  return typeof content === "string" ? content : undefined
}

const idList = (value: unknown): number[] =>
  (Array.isArray(value) ? value : [value]).filter((n): n is number => Number.isInteger(n) && n >= 0)

/** What tokenizer_config.json and generation_config.json name as special, as ids. */
export const namedTokens = (
  idOf: (token: string) => number | undefined,
  config: Readonly<Record<string, unknown>>,
  generation: Readonly<Record<string, unknown>>,
): { special: SpecialTokens; ends: number[] } => {
  const named = (key: string): number | undefined => {
    const text = tokenText(config[key])
    return text === undefined ? undefined : idOf(text)
  }
  const ends = idList(generation["eos_token_id"])
  const special: { -readonly [K in keyof SpecialTokens]: SpecialTokens[K] } = {}
  const bos = named("bos_token") ?? idList(generation["bos_token_id"])[0]
  const eos = named("eos_token") ?? ends[0]
  const pad = named("pad_token") ?? idList(generation["pad_token_id"])[0]
  const unk = named("unk_token")
  if (bos !== undefined) special.bos = bos
  if (eos !== undefined) {
    special.eos = eos
    ends.unshift(eos)
  }
  if (pad !== undefined) special.pad = pad
  if (unk !== undefined) special.unk = unk
  return { special, ends }
}

/** Ids that the post-processor puts before and after a single text. */
export const templateIds = (
  json: TokenizerJson,
  idOf: (token: string) => number | undefined,
): { before: number[]; after: number[] } => {
  const before: number[] = []
  const after: number[] = []
  for (const node of flatten(json.post_processor)) {
    if (node.type === "TemplateProcessing") {
      const specials = node["special_tokens"] as Record<string, { ids?: number[] }> | undefined
      let side = before
      for (const piece of (node["single"] ?? []) as Record<string, { id?: string }>[]) {
        const name = piece["SpecialToken"]?.id
        if (name === undefined) {
          side = after
          continue
        }
        const id = idOf(name)
        side.push(...(specials?.[name]?.ids ?? (id === undefined ? [] : [id])))
      }
    } else if (node.type === "BertProcessing" || node.type === "RobertaProcessing") {
      const [cls, sep] = [node["cls"], node["sep"]] as [[string, number], [string, number]]
      before.push(cls[1])
      after.push(sep[1])
    }
  }
  return { before, after }
}

/** Ids of added tokens that are special: the ones a decoder may skip. */
export const specialIds = (added: readonly AddedTokenJson[]): Set<number> =>
  new Set(added.filter((t) => t.special).map((t) => t.id))
