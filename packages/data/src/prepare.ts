import { setImmediate } from "node:timers"
import { SlothError } from "@sloth/core"
import type { Tokenizer } from "@sloth/model"
import { chatTemplateOf } from "./chat-template.ts"
import type { DataReport, Example } from "./example.ts"
import { encodeScored, encodeTokensRow, endOfTurnFinder, specialTokenTexts } from "./internal/encode.ts"
import type { Sequence } from "./internal/encode.ts"
import { createResponseSpanFinder } from "./response-spans.ts"
import type { MaskMode, ResponseSpanFinder } from "./response-spans.ts"
import { describeOrigin } from "./rows.ts"
import type { DataRow, RowOrigin } from "./rows.ts"

/** What to do with a row of more than `maxLength` tokens. */
export type OverlongMode = "truncate" | "split" | "drop"

/** Options of {@link prepareExamples}. */
export interface PrepareOptions {
  readonly tokenizer: Tokenizer
  /** Chat template source for conversations; the tokenizer's own by default. */
  readonly template?: string
  /** What is scored: assistant turns (the default), the last one, or all. For prompt and completion rows, `all` scores the prompt too. */
  readonly mask?: MaskMode
  /** Most tokens of an example; no limit by default. */
  readonly maxLength?: number
  /**
   * `truncate` (the default) keeps the first `maxLength` tokens; `split` makes several examples, each starting with the last token of the one
   * before so that no target is lost; `drop` leaves the row out.
   */
  readonly overlong?: OverlongMode
  /** The date that `strftime_now` prints in a template, `YYYY-MM-DD`; today by default. */
  readonly date?: string
  /** Further variables for the template. */
  readonly variables?: Readonly<Record<string, unknown>>
  /** A row the template refuses: stop (the default), or leave it out and count it. */
  readonly onBadRow?: "error" | "skip"
  /** Called now and then with the number of rows done. */
  readonly onProgress?: (done: number, total: number) => void
  readonly signal?: AbortSignal
}

/** Examples and what became of the rows. */
export interface Prepared {
  readonly examples: readonly Example[]
  readonly report: DataReport
}

/**
 * Turns rows into examples: conversations through the chat template (no special tokens added, so that a bos the template prints is the only one),
 * prompts with completions (bos where the tokenizer asks for it, the completion and an eos scored), texts (bos likewise, all scored, eos
 * appended), token ids as they are. Gives the event loop a turn every few hundred rows.
 * Errors: `SLOTH_TEMPLATE_MISSING`, those of `renderChat` and `SLOTH_TEMPLATE_SPANS` (with the row's place), `SLOTH_DATA_TOKEN_RANGE`,
 * `SLOTH_DATA_NOTHING_SCORED` if no row has a scored token, `SLOTH_DATA_MAX_LENGTH`.
 */
export const prepareExamples = async (rows: readonly DataRow[], options: PrepareOptions): Promise<Prepared> => {
  const { maxLength, overlong = "truncate", mask = "assistant" } = options
  if (maxLength !== undefined && (!Number.isInteger(maxLength) || maxLength < 2)) {
    throw new SlothError("SLOTH_DATA_MAX_LENGTH", {
      what: `The maximum length is ${maxLength}.`,
      next: "Give a whole number of tokens, at least 2.",
      fields: { maxLength },
    })
  }
  const encode = rowEncoder(options, mask)
  const examples: Example[] = []
  const reasons: { origin: RowOrigin; reason: string }[] = []
  let [tokens, scoredTokens, longest, truncated, tokensLost, dropped, split, unscored, skipped] = Array<number>(9).fill(
    0,
  ) as [number, number, number, number, number, number, number, number, number]
  const add = (sequence: Sequence, row: number): boolean => {
    sequence.mask[0] = 0
    const scored = sequence.mask.reduce((sum, bit) => sum + bit, 0)
    if (scored === 0) return false
    examples.push({ tokens: sequence.tokens, mask: sequence.mask, row })
    tokens += sequence.tokens.length
    scoredTokens += scored
    longest = Math.max(longest, sequence.tokens.length)
    return true
  }
  for (const [at, row] of rows.entries()) {
    if (at % 256 === 255) {
      options.onProgress?.(at, rows.length)
      await new Promise<void>((resolve) => setImmediate(resolve))
      options.signal?.throwIfAborted()
    }
    let sequence: Sequence
    try {
      sequence = encode.row(row)
    } catch (error) {
      if (!(error instanceof SlothError) || error.code === "SLOTH_TEMPLATE_MISSING") throw error
      const located = locate(error, row.origin)
      if (options.onBadRow !== "skip") throw located
      skipped += 1
      if (reasons.length < 5) reasons.push({ origin: row.origin, reason: located.what })
      continue
    }
    const length = sequence.tokens.length
    if (maxLength === undefined || length <= maxLength) {
      if (!add(sequence, row.origin.index)) unscored += 1
    } else if (overlong === "drop") {
      dropped += 1
      tokensLost += length
    } else if (overlong === "truncate") {
      truncated += 1
      tokensLost += length - maxLength
      if (!add(slice(sequence, 0, maxLength), row.origin.index)) unscored += 1
    } else {
      split += 1
      let any = false
      // One token of overlap: it is context for the first target of the next piece, and is no target there itself.
      for (let start = 0; start < length - 1; start += maxLength - 1) {
        any = add(slice(sequence, start, Math.min(start + maxLength, length)), row.origin.index) || any
      }
      if (!any) unscored += 1
    }
  }
  options.onProgress?.(rows.length, rows.length)
  const report: DataReport = {
    rows: rows.length,
    examples: examples.length,
    tokens,
    scoredTokens,
    longest,
    maxLength,
    truncated,
    tokensLost,
    dropped,
    split,
    unscored,
    skipped,
    openEnded: encode.openEnded(),
    reasons,
  }
  if (examples.length === 0) throw nothingScored(report, mask)
  return { examples, report }
}

const slice = (sequence: Sequence, start: number, end: number): Sequence => ({
  tokens: sequence.tokens.slice(start, end),
  mask: sequence.mask.slice(start, end),
})

const locate = (error: SlothError, origin: RowOrigin): SlothError => {
  if ("row" in error.fields) return error
  return new SlothError(error.code as `SLOTH_${string}`, {
    what: `${describeOrigin(origin)}: ${error.what}`,
    why: error.why,
    next: error.next,
    fields: { ...error.fields, row: origin.index, file: origin.file, line: origin.line },
    cause: error,
  })
}

const nothingScored = (report: DataReport, mask: MaskMode): SlothError => {
  const counts = [
    [report.unscored, "have no scored token"],
    [report.dropped, `are over the limit of ${report.maxLength} tokens`],
    [report.skipped, "are faulty"],
  ] as const
  return new SlothError("SLOTH_DATA_NOTHING_SCORED", {
    what: `No row has a token to learn from (mask "${mask}").`,
    why: `Of ${report.rows} rows, ${counts
      .filter(([n]) => n > 0)
      .map(([n, text]) => `${n} ${text}`)
      .join(", ")}.`,
    next:
      report.truncated > 0
        ? "The answers come after the limit on the length: raise maxLength, or split the rows."
        : "Check the mask option, the mask column, and that the rows have answers.",
    fields: { ...report },
  })
}

const rowEncoder = (options: PrepareOptions, mask: MaskMode) => {
  const { tokenizer } = options
  const { bos, eos } = tokenizer.special
  let finder: ResponseSpanFinder | undefined
  const conversations = (row: DataRow): ResponseSpanFinder => {
    if (finder !== undefined) return finder
    const source = options.template ?? tokenizer.chatTemplate
    if (source === undefined) {
      throw new SlothError("SLOTH_TEMPLATE_MISSING", {
        what: `${describeOrigin(row.origin)} is a conversation, and the model has no chat template.`,
        why: "It is probably a base model.",
        next: "Pass a template (CHATML_TEMPLATE is a plain one), or use prompt and completion rows.",
        fields: { row: row.origin.index },
      })
    }
    finder = createResponseSpanFinder(chatTemplateOf(source), {
      mask,
      ...specialTokenTexts(tokenizer),
      date: options.date,
      variables: options.variables,
      endOfTurn: endOfTurnFinder(tokenizer),
    })
    return finder
  }
  /** Adds bos and eos to a text's tokens where the model wants them and they are not there already. */
  const framed = (sequence: Sequence): Sequence => {
    const { tokens, mask } = sequence
    const front = tokenizer.addBos && bos !== undefined && tokens[0] !== bos ? 1 : 0
    const back = eos !== undefined && tokens.at(-1) !== eos ? 1 : 0
    if (front + back === 0) return sequence
    const result = {
      tokens: new Int32Array(tokens.length + front + back),
      mask: new Uint8Array(tokens.length + front + back),
    }
    result.tokens.set(tokens, front)
    result.mask.set(mask, front)
    if (front === 1) result.tokens[0] = bos as number
    if (back === 1) {
      result.tokens[result.tokens.length - 1] = eos as number
      result.mask[result.mask.length - 1] = 1
    }
    return result
  }
  return {
    openEnded: (): number => finder?.openEnded ?? 0,
    row: (row: DataRow): Sequence => {
      switch (row.kind) {
        case "conversation": {
          const { text, spans } = conversations(row).find(row.messages, row.tools)
          return encodeScored(tokenizer, text, spans)
        }
        case "completion": {
          const text = row.prompt + row.completion
          const start = mask === "all" ? 0 : row.prompt.length
          return framed(encodeScored(tokenizer, text, [{ start, end: text.length }]))
        }
        case "text":
          return framed(encodeScored(tokenizer, row.text, [{ start: 0, end: row.text.length }]))
        case "tokens":
          return encodeTokensRow(tokenizer, row)
      }
    },
  }
}
