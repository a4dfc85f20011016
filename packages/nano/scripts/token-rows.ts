import { readFileSync } from "node:fs"
import { join } from "node:path"
import { CHATML_TEMPLATE, compileChatTemplate } from "@sloth/data"
import { loadTokenizerFolder, type Tokenizer } from "@sloth/model"
import { generateCorpus } from "../src/generate/corpus.ts"
import { nanoFiles } from "../src/files.ts"
import type { NanoDocument } from "../src/generate/types.ts"

/** nano's tokenizer. */
export const nanoTokenizer = (): Tokenizer => loadTokenizerFolder(nanoFiles().model)

/** A tokenised document. */
export interface TokenRow {
  readonly kind: string
  readonly tokens: number[]
}

/**
 * Turns documents into pretraining rows. Raw text ends with `<|endoftext|>`, a conversation with the end of its last turn.
 * Rows longer than `maxLength` are left out (stories are far shorter: it is a guard, and `dropped` counts it).
 */
export function* tokenRows(
  documents: Iterable<NanoDocument>,
  tokenizer: Tokenizer,
  maxLength: number,
  dropped: { count: number },
): Generator<TokenRow> {
  const template = compileChatTemplate(CHATML_TEMPLATE)
  const end = tokenizer.tokenToId("<|endoftext|>") as number
  for (const document of documents) {
    const tokens =
      "text" in document
        ? [...tokenizer.encode(document.text), end]
        : tokenizer.encode(template.render(document.messages.map((m) => ({ role: m.role, content: m.content }))))
    if (tokens.length > maxLength) dropped.count++
    else yield { kind: document.kind, tokens }
  }
}

/** Reads a file pair written by `pretrain-data.ts --format binary`. */
export function readTokenFile(folder: string): { readonly tokens: Uint16Array; readonly starts: Uint32Array } {
  const view = (name: string) => {
    const b = readFileSync(join(folder, name))
    return b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength)
  }
  return { tokens: new Uint16Array(view("tokens.u16")), starts: new Uint32Array(view("starts.u32")) }
}

export { generateCorpus }
