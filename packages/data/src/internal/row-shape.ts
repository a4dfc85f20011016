import { SlothError } from "@sloth/core"
import { listValue } from "../list-value.ts"
import type { ColumnMapping } from "../recognise.ts"
import { describeOrigin } from "../rows.ts"
import type { RowOrigin } from "../rows.ts"

/** The kinds of rows that are told apart. */
export type RowKind =
  | "messages"
  | "sharegpt"
  | "alpaca"
  | "prompt-completion"
  | "text"
  | "tokens"
  | "preference"
  | "unpaired-preference"
  | "prompt-only"

/** A kind with the column that plays each part. */
export interface Shape {
  readonly kind: RowKind
  readonly columns: Readonly<Record<string, string>>
}

type Row = Record<string, unknown>

const isObject = (value: unknown): value is Row => typeof value === "object" && value !== null && !Array.isArray(value)

const present = (row: Row, name: string): boolean => row[name] !== undefined && row[name] !== null

/** The first of the names that the row has. */
const column = (row: Row, ...names: string[]): string | undefined => names.find((name) => present(row, name))

const collect = (row: Row, parts: Readonly<Record<string, string | undefined>>): Record<string, string> => {
  const result: Record<string, string> = {}
  for (const [part, name] of Object.entries(parts)) {
    if (name !== undefined && name in row) result[part] = name
  }
  return result
}

const shapeOf = (kind: RowKind, row: Row, parts: Readonly<Record<string, string | undefined>>): Shape => ({
  kind,
  columns: collect(row, parts),
})

/** Tells the kind of one row by its columns, or by the mapping where one is given. */
export const detect = (row: unknown, mapping: ColumnMapping | undefined, origin: RowOrigin): Shape => {
  if (!isObject(row)) throw unrecognised(origin, Array.isArray(row) ? "a list" : `a ${typeof row}`, [])
  if (mapping !== undefined && Object.keys(mapping).length > 0) return mapped(row, mapping, origin)

  if (present(row, "chosen") && present(row, "rejected")) {
    return shapeOf("preference", row, { prompt: "prompt", chosen: "chosen", rejected: "rejected" })
  }
  const ids = column(row, "tokens", "input_ids")
  if (ids !== undefined && listValue(row[ids]) !== undefined) {
    return shapeOf("tokens", row, { tokens: ids, mask: column(row, "mask", "completion_mask"), labels: "labels" })
  }
  const messages = column(row, "messages", "conversations", "conversation")
  if (messages !== undefined) {
    const first = listValue(row[messages])?.[0]
    if (isObject(first) || listValue(row[messages])?.length === 0) {
      const kind = isObject(first) && "from" in first ? "sharegpt" : "messages"
      return shapeOf(kind, row, { messages, system: "system", tools: "tools" })
    }
  }
  const completion = column(row, "completion", "response", "answer")
  const prompt = column(row, "prompt", "question")
  if (prompt !== undefined && completion !== undefined) {
    if (typeof row["label"] === "boolean") {
      return shapeOf("unpaired-preference", row, { prompt, completion, label: "label" })
    }
    return shapeOf("prompt-completion", row, { prompt, completion, tools: "tools" })
  }
  const output = column(row, "output", "response")
  if (present(row, "instruction") && output !== undefined) {
    const input = column(row, "input", "context")
    return shapeOf("alpaca", row, { instruction: "instruction", input, output, system: "system", history: "history" })
  }
  if (present(row, "text")) return shapeOf("text", row, { text: "text" })
  if (prompt !== undefined) return shapeOf("prompt-only", row, { prompt })
  throw unrecognised(origin, undefined, Object.keys(row))
}

const mapped = (row: Row, mapping: ColumnMapping, origin: RowOrigin): Shape => {
  const required = (...parts: (keyof ColumnMapping)[]): void => {
    for (const part of parts) {
      const name = mapping[part]
      if (name !== undefined && name in row) continue
      throw new SlothError("SLOTH_DATA_COLUMN", {
        what:
          name === undefined
            ? `The column mapping gives no column for "${part}".`
            : `${describeOrigin(origin)}: there is no column "${name}" (mapped to ${part}).`,
        why: `The columns are ${Object.keys(row)
          .map((k) => `"${k}"`)
          .join(", ")}.`,
        next: "Correct the columns option.",
        fields: { part, column: name, columns: Object.keys(row), row: origin.index, line: origin.line },
      })
    }
  }
  const kinds: readonly [RowKind, (keyof ColumnMapping)[]][] = [
    ["messages", ["messages"]],
    ["tokens", ["tokens"]],
    ["alpaca", ["instruction", "output"]],
    ["prompt-completion", ["prompt", "completion"]],
    ["text", ["text"]],
  ]
  const found = kinds.find(([, parts]) => parts.some((part) => mapping[part] !== undefined))
  if (found === undefined) {
    throw new SlothError("SLOTH_DATA_COLUMN", {
      what: `The column mapping (${Object.keys(mapping).join(", ")}) decides no kind of rows.`,
      next: "Map messages, or prompt and completion, or instruction and output, or text, or tokens.",
      fields: { mapping },
    })
  }
  const [kind, parts] = found
  required(...parts)
  const first = kind === "messages" ? listValue(row[mapping.messages as string])?.[0] : undefined
  return shapeOf(isObject(first) && "from" in first ? "sharegpt" : kind, row, mapping)
}

const unrecognised = (origin: RowOrigin, what: string | undefined, columns: readonly string[]): SlothError =>
  new SlothError("SLOTH_DATA_UNRECOGNISED", {
    what: `${describeOrigin(origin)}: ${
      what === undefined
        ? `the columns ${columns.map((k) => `"${k}"`).join(", ") || "(none)"} are of no known kind of row.`
        : `the row is ${what}, not an object.`
    }`,
    why: "Known are: messages | conversations | instruction, input, output | prompt, completion | text | tokens, mask.",
    next: "Rename the columns, or say which is which by the columns option.",
    fields: { row: origin.index, file: origin.file, line: origin.line, columns },
  })

/** The error for kinds that are known but hold nothing that supervised fine-tuning could learn; undefined for the others. */
export const rejected = (shape: Shape, origin: RowOrigin): SlothError | undefined => {
  const where = describeOrigin(origin)
  const fields = { kind: shape.kind, row: origin.index, line: origin.line }
  switch (shape.kind) {
    case "preference":
      return new SlothError("SLOTH_DATA_NOT_FOR_SFT", {
        what: `${where}: these are preference pairs ("chosen" and "rejected").`,
        why: "Supervised fine-tuning learns one answer a row; pairs are for preference methods such as DPO.",
        next: 'Use such a method, or learn the chosen answers alone: columns { prompt: "prompt", completion: "chosen" }, or { messages: "chosen" } if they hold messages.',
        fields,
      })
    case "unpaired-preference":
      return new SlothError("SLOTH_DATA_NOT_FOR_SFT", {
        what: `${where}: these are completions rated good or bad ("label").`,
        why: "Supervised fine-tuning would learn the bad ones too.",
        next: "Use a method for such data (KTO), or keep the rows labelled true and drop the label column.",
        fields,
      })
    case "prompt-only":
      return new SlothError("SLOTH_DATA_NOT_FOR_SFT", {
        what: `${where}: there are prompts but no answers.`,
        why: "Supervised fine-tuning learns answers; prompts alone are for reinforcement learning.",
        next: 'Add a "completion" column, or say by the columns option which column holds the answer.',
        fields,
      })
    default:
      return undefined
  }
}

/** Typed access to the parts of a row; every failure is `SLOTH_DATA_FIELD` with the row's place. */
export interface Fields {
  text(part: string, fallback?: string): string
  isList(part: string): boolean
  list(part: string): readonly unknown[]
  tools(): readonly unknown[] | undefined
  history(): readonly (readonly [string, string])[]
  tokens(): { tokens: readonly number[]; mask?: readonly number[] }
}

export const fieldsOf = (row: Row, shape: Shape, origin: RowOrigin): Fields => {
  const value = (part: string): unknown => {
    const name = shape.columns[part]
    return name === undefined ? undefined : row[name]
  }
  const wrong = (part: string, expected: string): SlothError =>
    new SlothError("SLOTH_DATA_FIELD", {
      what: `${describeOrigin(origin)}: "${shape.columns[part] ?? part}" is not ${expected}.`,
      next: "Mend or remove the row.",
      fields: { row: origin.index, file: origin.file, line: origin.line, column: shape.columns[part], expected },
    })
  const list = (part: string): readonly unknown[] => {
    const found = listValue(value(part))
    if (found === undefined) throw wrong(part, "a list")
    return found
  }
  const numbers = (part: string, test: (n: number) => boolean, expected: string): readonly number[] => {
    const found = list(part)
    if (!found.every((n) => typeof n === "number" && Number.isInteger(n) && test(n))) throw wrong(part, expected)
    return found as readonly number[]
  }
  return {
    list,
    isList: (part) => Array.isArray(value(part)),
    text: (part, fallback) => {
      const found = value(part)
      if ((found === undefined || found === null) && fallback !== undefined) return fallback
      if (typeof found !== "string") throw wrong(part, "a text")
      return found
    },
    tools: () => {
      const found = value("tools")
      if (found === undefined || found === null || found === "") return undefined
      const tools = list("tools")
      return tools.length === 0 ? undefined : tools
    },
    history: () => {
      const found = value("history")
      if (found === undefined || found === null || found === "") return []
      return list("history").map((turn) => {
        if (!Array.isArray(turn) || turn.length !== 2 || !turn.every((t) => typeof t === "string")) {
          throw wrong("history", "a list of [question, answer] pairs")
        }
        return turn as unknown as readonly [string, string]
      })
    },
    tokens: () => {
      const tokens = numbers("tokens", (n) => n >= 0, "a list of token ids")
      const sameLength = (part: string, other: readonly number[]): readonly number[] => {
        if (other.length !== tokens.length) throw wrong(part, `as long as the tokens (${tokens.length})`)
        return other
      }
      if (shape.columns["mask"] !== undefined && value("mask") !== null) {
        return {
          tokens,
          mask: sameLength(
            "mask",
            numbers("mask", (n) => n === 0 || n === 1, "a list of 0 and 1"),
          ),
        }
      }
      if (shape.columns["labels"] !== undefined && value("labels") !== null) {
        // The labels of transformers: a copy of the ids with -100 where nothing is scored.
        const labels = sameLength(
          "labels",
          numbers("labels", () => true, "a list of token ids or -100"),
        )
        if (labels.some((label, i) => label !== -100 && label !== tokens[i])) {
          throw wrong("labels", "a copy of the token ids with -100 where nothing is scored")
        }
        return { tokens, mask: labels.map((label) => (label === -100 ? 0 : 1)) }
      }
      return { tokens }
    },
  }
}
