import { SlothError } from "@sloth/core"
import { describeOrigin, type ChatMessage, type DataRow, type RowOrigin, type SourceRow } from "@sloth/data"

/** How the texts of a row are written: plain texts, lists of messages, or token ids. */
export type RowForm = "text" | "messages" | "tokens"

/** A prompt with one completion, in a form that `@sloth/data` prepares. */
export type PromptedRow = DataRow

/** A row of preferences before tokenisation. */
export interface PreferenceRow {
  readonly form: RowForm
  readonly origin: RowOrigin
  readonly chosen: PromptedRow
  readonly rejected: PromptedRow
  readonly gold?: PromptedRow
  readonly margin?: number
  readonly reference?: { readonly chosen: number; readonly rejected: number }
}

/** A rated row before tokenisation. */
export interface RatedRow {
  readonly form: RowForm
  readonly origin: RowOrigin
  readonly completion: PromptedRow
  readonly desirable: boolean
  readonly reference?: number
}

type Row = Readonly<Record<string, unknown>>

const wrong = (
  origin: RowOrigin,
  code: `SLOTH_${string}`,
  what: string,
  next: string,
  fields: object = {},
): SlothError =>
  new SlothError(code, {
    what: `${describeOrigin(origin)}: ${what}`,
    next,
    fields: { row: origin.index, file: origin.file, line: origin.line, ...fields },
  })

const isObject = (value: unknown): value is Row => typeof value === "object" && value !== null && !Array.isArray(value)

/** A list, also one written as JSON text, as tables hold it. */
const asList = (value: unknown): readonly unknown[] | undefined => {
  if (Array.isArray(value)) return value
  if (typeof value !== "string" || !/^\s*\[\s*[[{\d]/.test(value)) return undefined
  try {
    const parsed: unknown = JSON.parse(value)
    return Array.isArray(parsed) ? parsed : undefined
  } catch {
    return undefined
  }
}

/** One column of a row as what it is. */
type Part =
  | { readonly form: "text"; readonly text: string }
  | { readonly form: "messages"; readonly messages: readonly unknown[] }
  | { readonly form: "tokens"; readonly tokens: readonly number[] }

const isTokenId = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0

const partOf = (row: Row, column: string, origin: RowOrigin): Part => {
  const value = row[column]
  const list = asList(value)
  if (list !== undefined) {
    if (list.length > 0 && list.every(isTokenId)) return { form: "tokens", tokens: list }
    if (list.every(isObject)) return { form: "messages", messages: list }
  } else if (isObject(value)) return { form: "messages", messages: [value] }
  else if (typeof value === "string") return { form: "text", text: value }
  throw wrong(
    origin,
    "SLOTH_DATA_FIELD",
    `"${column}" is neither a text, nor a list of messages, nor a list of token ids.`,
    "Mend or remove the row.",
    { column },
  )
}

const present = (row: Row, column: string): boolean => row[column] !== undefined && row[column] !== null

const numberOf = (row: Row, column: string, origin: RowOrigin): number => {
  const value = row[column]
  if (typeof value === "number" && Number.isFinite(value)) return value
  throw wrong(origin, "SLOTH_DATA_FIELD", `"${column}" is not a finite number.`, "Mend or remove the column.", {
    column,
  })
}

const noCompletion = (origin: RowOrigin, column: string): SlothError =>
  wrong(origin, "SLOTH_RL_NO_COMPLETION", `"${column}" has nothing beyond the prompt.`, "Mend or remove the row.", {
    column,
  })

/** Columns of the messages of a row that play no part in the loss. */
const unscored = (messages: readonly unknown[]): unknown[] =>
  messages.map((message) => (isObject(message) ? { ...message, weight: 0 } : message))

const toolsOf = (row: Row, origin: RowOrigin): readonly unknown[] | undefined => {
  if (!present(row, "tools") || row["tools"] === "") return undefined
  const tools = asList(row["tools"])
  if (tools === undefined)
    throw wrong(origin, "SLOTH_DATA_FIELD", '"tools" is not a list.', "Mend or remove the column.", { column: "tools" })
  return tools.length === 0 ? undefined : tools
}

/** Puts a prompt and a completion together. */
const joined = (prompt: Part, completion: Part, column: string, row: Row, origin: RowOrigin): PromptedRow => {
  if (prompt.form === "tokens" && completion.form === "tokens") {
    const tokens = [...prompt.tokens, ...completion.tokens]
    return {
      kind: "tokens",
      tokens,
      mask: tokens.map((_, t) => (t < prompt.tokens.length ? 0 : 1)),
      origin,
    }
  }
  if (prompt.form === "text" && completion.form === "text") {
    if (completion.text === "") throw noCompletion(origin, column)
    return { kind: "completion", prompt: prompt.text, completion: completion.text, origin }
  }
  const asMessages = (part: Part, role: string): readonly unknown[] | undefined =>
    part.form === "messages" ? part.messages : part.form === "text" ? [{ role, content: part.text }] : undefined
  const [before, after] = [asMessages(prompt, "user"), asMessages(completion, "assistant")]
  if (before === undefined || after === undefined)
    throw wrong(
      origin,
      "SLOTH_RL_ROW_FORMS",
      `"${column}" is written as ${completion.form}, the prompt as ${prompt.form}.`,
      "Write both as texts, as messages, or as token ids.",
      { column },
    )
  if (after.length === 0) throw noCompletion(origin, column)
  const tools = toolsOf(row, origin)
  return {
    kind: "conversation",
    messages: [...unscored(before), ...after] as unknown as readonly ChatMessage[],
    ...(tools === undefined ? {} : { tools }),
    origin,
  }
}

const sameJson = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/**
 * Cuts what several completions begin with off as their prompt: whole messages, or characters (a space at the end goes with the completions, as tokenizers join it to
 * the next word). Source: TRL 1.13, `extract_prompt`.
 */
const splitPrompt = (
  parts: readonly Part[],
  columns: readonly string[],
  origin: RowOrigin,
): readonly [Part, Part[]] => {
  const form = parts[0]!.form
  if (parts.some((part) => part.form !== form))
    throw wrong(
      origin,
      "SLOTH_RL_ROW_FORMS",
      `${columns.map((c, i) => `"${c}" is written as ${parts[i]!.form}`).join(", ")}.`,
      "Write all of them as texts, as messages, or as token ids.",
    )
  const lists = parts.map((part): readonly unknown[] | string =>
    part.form === "text" ? part.text : part.form === "messages" ? part.messages : part.tokens,
  )
  const shortest = Math.min(...lists.map((list) => list.length))
  let same = 0
  while (same < shortest && lists.every((list) => sameJson(list[same], lists[0]![same]))) same++
  if (form === "text") {
    const text = lists[0] as string
    // Never between the two halves of a character.
    if (same > 0 && /[\ud800-\udbff]/.test(text[same - 1]!)) same--
    if (same > 0 && text[same - 1] === " ") same--
  }
  for (const [i, list] of lists.entries()) if (list.length === same) throw noCompletion(origin, columns[i]!)
  const cut = (part: Part, from: number, to?: number): Part =>
    part.form === "text"
      ? { form: "text", text: part.text.slice(from, to) }
      : part.form === "messages"
        ? { form: "messages", messages: part.messages.slice(from, to) }
        : { form: "tokens", tokens: part.tokens.slice(from, to) }
  return [cut(parts[0]!, 0, same), parts.map((part) => cut(part, same))]
}

/** True where a message list begins with the prompt that the row also gives as a text. */
const repeatsPrompt = (prompt: Part, completion: Part): boolean =>
  prompt.form === "text" &&
  completion.form === "messages" &&
  completion.messages.some((message) => {
    const { role, from, content, value } = message as Row
    return ["user", "human"].includes(String(role ?? from)) && (content ?? value) === prompt.text
  })

const originOf = ({ file, line }: SourceRow, index: number): RowOrigin => ({ index, file, line })

const rowOf = (source: SourceRow, origin: RowOrigin): Row => {
  if (isObject(source.row)) return source.row
  throw wrong(origin, "SLOTH_RL_ROW_KIND", "the row is not an object.", "Give each row as an object with columns.")
}

/** True for a row that holds a pair. */
export const isPair = (row: unknown): boolean => isObject(row) && present(row, "chosen") && present(row, "rejected")

/**
 * Reads a row of a pair: `chosen` and `rejected`, with `prompt` or with a common beginning that is the prompt; `gold` (or `reference`) for TPO; `margin` for reward models; `tools`;
 * `ref_chosen_logps` and `ref_rejected_logps`. Errors: SLOTH_RL_ROW_KIND, SLOTH_RL_ROW_FORMS, SLOTH_RL_NO_COMPLETION, SLOTH_DATA_FIELD.
 */
export const preferenceRow = (source: SourceRow, index: number): PreferenceRow => {
  const origin = originOf(source, index)
  const row = rowOf(source, origin)
  if (!isPair(row))
    throw wrong(
      origin,
      "SLOTH_RL_ROW_KIND",
      `there is no pair of completions (columns: ${Object.keys(row).join(", ") || "none"}).`,
      present(row, "label")
        ? 'This method compares a "chosen" with a "rejected" completion; rated completions are for kto and bco.'
        : 'Give "chosen" and "rejected", and "prompt" where they do not repeat it.',
      { columns: Object.keys(row) },
    )
  const goldColumn = ["gold", "reference"].find((column) => present(row, column))
  const columns = ["chosen", "rejected", ...(goldColumn === undefined ? [] : [goldColumn])]
  let completions = columns.map((column) => partOf(row, column, origin))
  let prompt: Part
  const given = present(row, "prompt") ? partOf(row, "prompt", origin) : undefined
  if (given === undefined || completions.every((c) => repeatsPrompt(given, c)))
    [prompt, completions] = splitPrompt(completions, columns, origin)
  else prompt = given
  const [chosen, rejected, gold] = completions.map((c, i) => joined(prompt, c, columns[i]!, row, origin))
  const [refChosen, refRejected] = ["ref_chosen_logps", "ref_rejected_logps"] as const
  return {
    form: completions[0]!.form,
    origin,
    chosen: chosen!,
    rejected: rejected!,
    ...(gold === undefined ? {} : { gold }),
    ...(present(row, "margin") ? { margin: numberOf(row, "margin", origin) } : {}),
    ...(present(row, refChosen) || present(row, refRejected)
      ? { reference: { chosen: numberOf(row, refChosen, origin), rejected: numberOf(row, refRejected, origin) } }
      : {}),
  }
}

/**
 * Reads a rated row: `prompt`, `completion` and `label`; or `messages` and `label`, where the last answer is rated; `tools`; `ref_logps`. A pair gives two rated rows.
 * Errors: as {@link preferenceRow}.
 */
export const ratedRows = (source: SourceRow, index: number): RatedRow[] => {
  const origin = originOf(source, index)
  const row = rowOf(source, origin)
  if (isPair(row)) {
    const { form, chosen, rejected, reference } = preferenceRow(source, index)
    return [
      {
        form,
        origin,
        completion: chosen,
        desirable: true,
        ...(reference === undefined ? {} : { reference: reference.chosen }),
      },
      {
        form,
        origin,
        completion: rejected,
        desirable: false,
        ...(reference === undefined ? {} : { reference: reference.rejected }),
      },
    ]
  }
  const label = row["label"]
  if (label !== true && label !== false && label !== 0 && label !== 1)
    throw wrong(
      origin,
      present(row, "label") ? "SLOTH_DATA_FIELD" : "SLOTH_RL_ROW_KIND",
      present(row, "label")
        ? '"label" is not true or false.'
        : `there is no "label" (columns: ${Object.keys(row).join(", ") || "none"}).`,
      'Give "prompt", "completion" and "label" (true for a good one), or pairs with "chosen" and "rejected".',
      { columns: Object.keys(row) },
    )
  const reference = present(row, "ref_logps") ? { reference: numberOf(row, "ref_logps", origin) } : {}
  const messagesColumn = ["messages", "conversations"].find((column) => present(row, column))
  let prompt: Part
  let completion: Part
  let column = "completion"
  if (present(row, "completion")) {
    completion = partOf(row, "completion", origin)
    prompt = present(row, "prompt")
      ? partOf(row, "prompt", origin)
      : completion.form === "text"
        ? { form: "text", text: "" }
        : { form: completion.form, messages: [], tokens: [] }
  } else if (messagesColumn !== undefined) {
    column = messagesColumn
    const part = partOf(row, messagesColumn, origin)
    if (part.form !== "messages")
      throw wrong(origin, "SLOTH_DATA_FIELD", `"${column}" is not a list of messages.`, "Mend or remove the row.", {
        column,
      })
    prompt = { form: "messages", messages: part.messages.slice(0, -1) }
    completion = { form: "messages", messages: part.messages.slice(-1) }
  } else
    throw wrong(
      origin,
      "SLOTH_RL_ROW_KIND",
      `there is no completion (columns: ${Object.keys(row).join(", ")}).`,
      'Give "prompt" and "completion", or "messages".',
      { columns: Object.keys(row) },
    )
  return [
    {
      form: completion.form,
      origin,
      completion: joined(prompt, completion, column, row, origin),
      desirable: label === true || label === 1,
      ...reference,
    },
  ]
}
