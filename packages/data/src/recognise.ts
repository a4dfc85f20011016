import { SlothError } from "@sloth/core"
import { normaliseMessages } from "./conversation.ts"
import { detect, fieldsOf, rejected } from "./internal/row-shape.ts"
import type { RowKind, Shape } from "./internal/row-shape.ts"
import { emptyDataset } from "./read-rows.ts"
import { describeOrigin } from "./rows.ts"
import type { ChatMessage, DataRow, RowOrigin, SourceRow } from "./rows.ts"

export type { RowKind } from "./internal/row-shape.ts"

/**
 * Which column plays which part, where the names in the data are not the usual ones. The parts given decide the kind:
 * `messages`; `prompt` and `completion`; `text`; `instruction` and `output` (with `input`, `system`, `history`); `tokens` (with `mask`).
 */
export type ColumnMapping = Readonly<
  Partial<
    Record<
      | "messages"
      | "tools"
      | "prompt"
      | "completion"
      | "text"
      | "instruction"
      | "input"
      | "output"
      | "system"
      | "history"
      | "tokens"
      | "mask"
      | "labels",
      string
    >
  >
>

/** Options of {@link recognise}. */
export interface RecogniseOptions {
  /** Explicit columns; without it the kind is recognised by the column names. */
  readonly columns?: ColumnMapping
  /** What to do with a row that has the right kind but is faulty: stop (the default), or leave it out and count it. */
  readonly onBadRow?: "error" | "skip"
}

/** What a data set was recognised as. */
export interface Recognition {
  readonly kind: RowKind
  /** Part to column name, such as `{ prompt: "question", completion: "answer" }`. */
  readonly columns: Readonly<Record<string, string>>
  /** Columns found in the data that play no part. */
  readonly unused: readonly string[]
  /** One printable sentence on all of this. */
  readonly statement: string
  readonly rows: readonly DataRow[]
  /** Faulty rows left out, with the reason; empty unless `onBadRow` is `"skip"`. */
  readonly skipped: readonly { readonly origin: RowOrigin; readonly reason: string }[]
}

const kindWords: Readonly<Record<RowKind, string>> = {
  messages: "conversations (messages)",
  sharegpt: "conversations (ShareGPT)",
  alpaca: "instructions (Alpaca)",
  "prompt-completion": "prompts with completions",
  text: "raw text",
  tokens: "token ids",
  preference: "preference pairs",
  "unpaired-preference": "rated completions",
  "prompt-only": "prompts without answers",
}

/**
 * Recognises what kind of rows these are and turns them into {@link DataRow}s. All rows must be of one kind.
 * Errors: `SLOTH_DATA_EMPTY`, `SLOTH_DATA_UNRECOGNISED`, `SLOTH_DATA_MIXED_KINDS` (names the lines), `SLOTH_DATA_NOT_FOR_SFT`
 * (preference rows and prompts without answers), `SLOTH_DATA_COLUMN`, `SLOTH_DATA_FIELD`, and those of `normaliseMessages`.
 */
export const recognise = (rows: readonly SourceRow[], options: RecogniseOptions = {}): Recognition => {
  if (rows.length === 0) throw emptyDataset([])
  const shapes = new Map<string, { shape: Shape; origins: RowOrigin[] }>()
  const seen = new Set<string>()
  rows.forEach((source, index) => {
    const origin: RowOrigin = { index, file: source.file, line: source.line }
    const shape = detect(source.row, options.columns, origin)
    const entry = shapes.get(shape.kind)
    if (entry === undefined) shapes.set(shape.kind, { shape, origins: [origin] })
    else {
      if (Object.keys(shape.columns).length > Object.keys(entry.shape.columns).length) entry.shape = shape
      if (entry.origins.length < 5) entry.origins.push(origin)
    }
    for (const key of Object.keys(source.row as object)) seen.add(key)
  })
  if (shapes.size > 1) throw mixedKinds(shapes)
  const { shape, origins } = [...shapes.values()][0] as { shape: Shape; origins: RowOrigin[] }
  const refusal = rejected(shape, origins[0] as RowOrigin)
  if (refusal !== undefined) throw refusal

  const result: DataRow[] = []
  const skipped: { origin: RowOrigin; reason: string }[] = []
  rows.forEach((source, index) => {
    const origin: RowOrigin = { index, file: source.file, line: source.line }
    try {
      result.push(toDataRow(source.row as Record<string, unknown>, options.columns, origin))
    } catch (error) {
      if (options.onBadRow !== "skip" || !(error instanceof SlothError)) throw error
      skipped.push({ origin, reason: error.what })
    }
  })
  if (result.length === 0) {
    throw new SlothError("SLOTH_DATA_EMPTY", {
      what: `All ${rows.length} rows are faulty.`,
      why: `The first: ${skipped[0]?.reason}`,
      next: "Mend the data, or say by the columns option what its columns are.",
      fields: { rows: rows.length },
    })
  }
  const unused = [...seen].filter((key) => !Object.values(shape.columns).includes(key))
  return {
    kind: shape.kind,
    columns: shape.columns,
    unused,
    statement: statementOf(shape, result.length, skipped.length, unused),
    rows: result,
    skipped,
  }
}

const statementOf = (shape: Shape, rows: number, skipped: number, unused: readonly string[]): string => {
  const parts = Object.entries(shape.columns).map(([part, column]) =>
    part === column ? `"${column}"` : `${part} from "${column}"`,
  )
  const count = `${rows.toLocaleString("en-US")} ${rows === 1 ? "row" : "rows"}`
  return [
    `Recognised ${count} of ${kindWords[shape.kind]}: ${parts.join(", ")}.`,
    ...(unused.length === 0 ? [] : [`Not used: ${unused.map((k) => `"${k}"`).join(", ")}.`]),
    ...(skipped === 0 ? [] : [`Left out as faulty: ${skipped}.`]),
  ].join(" ")
}

const mixedKinds = (shapes: ReadonlyMap<string, { shape: Shape; origins: RowOrigin[] }>): SlothError => {
  const kinds = [...shapes.values()].map(({ shape, origins }) => ({
    kind: shape.kind,
    rows: origins.map(describeOrigin),
  }))
  return new SlothError("SLOTH_DATA_MIXED_KINDS", {
    what: "The rows are of different kinds.",
    why: `${kinds.map((k) => `${kindWords[k.kind]} at ${k.rows.slice(0, 3).join(", ")}${k.rows.length > 3 ? ", ..." : ""}`).join("; ")}.`,
    next: "Train on one kind at a time, or bring all rows into one form.",
    fields: { kinds },
  })
}

const toDataRow = (row: Record<string, unknown>, columns: ColumnMapping | undefined, origin: RowOrigin): DataRow => {
  const shape = detect(row, columns, origin)
  const fields = fieldsOf(row, shape, origin)
  switch (shape.kind) {
    case "messages":
    case "sharegpt": {
      const system = fields.text("system", "")
      const given = fields.list("messages")
      const own = (given[0] as { role?: unknown; from?: unknown } | undefined) ?? {}
      const hasSystem = own.role === "system" || own.from === "system"
      const messages = system === "" || hasSystem ? given : [{ role: "system", content: system }, ...given]
      return { kind: "conversation", messages: normaliseMessages(messages, origin), tools: fields.tools(), origin }
    }
    case "alpaca": {
      const messages: ChatMessage[] = []
      const system = fields.text("system", "")
      if (system !== "") messages.push({ role: "system", content: system })
      for (const [user, assistant] of fields.history()) {
        messages.push({ role: "user", content: user }, { role: "assistant", content: assistant })
      }
      const input = fields.text("input", "")
      const instruction = fields.text("instruction")
      messages.push({ role: "user", content: input.trim() === "" ? instruction : `${instruction}\n${input}` })
      messages.push({ role: "assistant", content: fields.text("output") })
      return { kind: "conversation", messages: normaliseMessages(messages, origin), origin }
    }
    case "prompt-completion": {
      if (!fields.isList("prompt") && !fields.isList("completion")) {
        return { kind: "completion", prompt: fields.text("prompt"), completion: fields.text("completion"), origin }
      }
      // Messages in both columns: one conversation in which only the completion's answers count.
      const prompt = fields.list("prompt").map((m) => (m !== null && typeof m === "object" ? { ...m, weight: 0 } : m))
      const messages = normaliseMessages([...prompt, ...fields.list("completion")], origin)
      return { kind: "conversation", messages, tools: fields.tools(), origin }
    }
    case "text":
      return { kind: "text", text: fields.text("text"), origin }
    case "tokens":
      return { kind: "tokens", ...fields.tokens(), origin }
    default:
      throw rejected(shape, origin) ?? new Error(`unreachable: ${shape.kind}`)
  }
}
