import { arithmeticText } from "./arithmetic.ts"
import { conversation, storyText } from "./conversation.ts"
import { factText } from "./facts.ts"
import { Random } from "./random.ts"
import type { NanoDocument } from "./types.ts"

/** What {@link generateCorpus} takes. */
export interface CorpusOptions {
  /** Equal seeds give equal documents. Default 1. */
  readonly seed?: number
  /** How many documents to write. */
  readonly rows: number
  /** Part of the documents that are raw text (stories, facts, sums); the others are conversations. Default 0.3. */
  readonly textShare?: number
  /** How often exactly the same document may occur. Default 2. */
  readonly copies?: number
}

/** 53 bits of two FNV-1a runs: enough to tell some hundred thousand documents apart. */
function fingerprint(text: string): number {
  let a = 0x811c9dc5
  let b = 0x01000193
  for (let k = 0; k < text.length; k++) {
    const c = text.charCodeAt(k)
    a = Math.imul(a ^ c, 0x01000193)
    b = Math.imul(b ^ c, 0x85ebca6b) ^ (b >>> 13)
  }
  return (a >>> 0) * 2097152 + ((b >>> 0) & 2097151)
}

/** The text of a document as one string, for comparing documents. */
export function documentKey(document: NanoDocument): string {
  return "text" in document ? document.text : document.messages.map((m) => `${m.role}\n${m.content}`).join("\n\n")
}

function textDocument(random: Random): NanoDocument {
  const kind = random.weighted({ story: 5, facts: 4, arithmetic: 3 })
  return kind === "story"
    ? { kind: "text-story", text: storyText(random) }
    : kind === "facts"
      ? { kind: "text-facts", text: factText(random) }
      : { kind: "text-arithmetic", text: arithmeticText(random) }
}

/**
 * Writes nano's training text, one document at a time: stories, facts, sums, lists, formats, small talk, as raw text and as
 * conversations. Deterministic in its options; memory grows by a few bytes a document.
 */
export function* generateCorpus(options: CorpusOptions): Generator<NanoDocument> {
  const { seed = 1, rows, textShare = 0.3, copies = 2 } = options
  const seen = new Map<number, number>()
  for (let row = 0; row < rows; row++) {
    let document: NanoDocument | undefined
    // a few short dialogues are exhausted in a large corpus: draw again, but never for ever
    for (let attempt = 0; attempt < 20; attempt++) {
      const random = new Random(seed, row * 32 + attempt)
      document = random.chance(textShare) ? textDocument(random) : conversation(random)
      const key = fingerprint(documentKey(document))
      const count = seen.get(key) ?? 0
      if (count < copies || attempt === 19) {
        seen.set(key, count + 1)
        break
      }
    }
    yield document as NanoDocument
  }
}
