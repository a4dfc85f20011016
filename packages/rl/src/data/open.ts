import { createHash } from "node:crypto"
import { SlothError, isSlothError, type ConfigSchema } from "@sloth/core"
import {
  normaliseMessages,
  prepareExamples,
  splitHeldOut,
  type DataRow,
  type PrepareOptions,
  type ReadOptions,
  type RowOrigin,
  type SourceRow,
} from "@sloth/data"
import type { Objective, OpenedRows, TrainingUnit } from "@sloth/train"
import { readSource } from "./source.ts"
import type { ScoredText } from "../preference/completions-unit.ts"
import type { PreferenceExample, RatedExample } from "./examples.ts"
import { previewCompletions } from "./preview.ts"
import { preferenceRow, ratedRows, type RowForm } from "./rows.ts"

/** Options of {@link openPreferences} and {@link openRatings}. */
export interface PreferenceOptions
  extends
    ReadOptions,
    Pick<PrepareOptions, "tokenizer" | "template" | "maxLength" | "date" | "variables" | "onBadRow" | "signal"> {
  /** A text of more than `maxLength` tokens: keep the first of them (the default), or leave the row out. A completion cannot be split. */
  readonly overlong?: PrepareOptions["overlong"]
  /** Only "assistant": what is scored follows from which part of a row is the completion. */
  readonly mask?: PrepareOptions["mask"]
  /** Rows held out for evaluation: a share below 1, or a number of rows; none by default. */
  readonly heldOut?: number
  /** Seed of the choice of held-out rows; 0 by default. */
  readonly seed?: number
}

/** What became of the rows. */
export interface PreferenceReport {
  readonly rows: number
  readonly examples: number
  /** Tokens of all texts, prompts counted with each. */
  readonly tokens: number
  readonly scoredTokens: number
  /** Tokens of the longest text. */
  readonly longest: number
  /** Rows with a text that was cut at the limit. */
  readonly truncated: number
  /** Rows left out: over the limit, or with a completion of which no token is left within it. */
  readonly dropped: number
  /** Faulty rows left out (`onBadRow: "skip"`). */
  readonly skipped: number
  /** Pairs whose completions are the same; they teach nothing. */
  readonly identical: number
  /** First few reasons for rows left out as faulty. */
  readonly reasons: readonly { readonly origin: RowOrigin; readonly reason: string }[]
}

/** Rows that are ready to train on. */
export interface PreferenceData<Row> extends OpenedRows<Row> {
  readonly examplesHash: string
  readonly report: PreferenceReport
}

/** An objective that reads its own kind of rows: `open` makes the data that `train` takes. */
export interface RowObjective<
  Row,
  Name extends string = string,
  Config extends ConfigSchema = ConfigSchema,
> extends Objective<Row> {
  readonly name: Name
  /** Its settings. */
  readonly config: Config
  /** Opens rows, in files or given as objects. */
  open(source: string | readonly string[] | readonly object[], options: PreferenceOptions): Promise<PreferenceData<Row>>
}

/**
 * Hides what an objective adds to its units. It only ever meets units that it made itself, and the trainer takes objectives of any.
 */
export const rowObjective =
  <Row, Unit extends TrainingUnit>() =>
  <const Name extends string, Config extends ConfigSchema>(
    objective: Objective<Row, Unit> & Pick<RowObjective<Row, Name, Config>, "name" | "config" | "open">,
  ): RowObjective<Row, Name, Config> =>
    objective as RowObjective<Row, Name, Config>

const words: Readonly<Record<RowForm, string>> = { text: "texts", messages: "conversations", tokens: "token ids" }

interface Parsed {
  readonly form: RowForm
  readonly origin: RowOrigin
}

/** The messages of a conversation as templates expect them. */
const normalised = (row: DataRow): DataRow =>
  row.kind === "conversation" ? { ...row, messages: normaliseMessages(row.messages, row.origin) } : row

/** What became of a text: tokens, nothing to learn, or an error. */
type Encoded = ScoredText | undefined | SlothError

/**
 * Tokenises texts of different rows of the data set. With `onBadRow: "skip"` a faulty one gives its error, else the first error ends it.
 */
const encode = async (rows: readonly DataRow[], options: PreferenceOptions): Promise<Encoded[]> => {
  const { tokenizer, template, date, variables, signal, onBadRow } = options
  const run = async (some: readonly DataRow[]): Promise<Map<number, ScoredText>> => {
    try {
      const { examples } = await prepareExamples(some, { tokenizer, template, date, variables, signal, onBadRow })
      return new Map(examples.map(({ row, tokens, mask }) => [row, { tokens, scored: mask }]))
    } catch (error) {
      if (isSlothError(error) && error.code === "SLOTH_DATA_NOTHING_SCORED") return new Map()
      throw error
    }
  }
  const found = await run(rows)
  const out: Encoded[] = []
  for (const row of rows) {
    const text = found.get(row.origin.index)
    if (text !== undefined || onBadRow !== "skip") out.push(text)
    else
      // Left out for an error or for want of a scored token: alone it says which.
      out.push(
        await prepareExamples([row], { tokenizer, template, date, variables }).then(
          () => undefined,
          (error: unknown) => {
            if (!isSlothError(error)) throw error
            return error.code === "SLOTH_DATA_NOTHING_SCORED" ? undefined : (error as SlothError)
          },
        ),
      )
  }
  return out
}

interface Prepared<Row> {
  readonly examples: Row[]
  readonly report: PreferenceReport
  readonly forms: readonly RowForm[]
}

/**
 * Turns parsed rows into examples. A row is either whole or left out: each of its texts is tokenised, cut, and must keep a scored token.
 */
const prepare = async <Row, P extends Parsed>(
  sources: readonly SourceRow[],
  options: PreferenceOptions,
  parse: (source: SourceRow, index: number) => readonly P[],
  texts: (row: P) => readonly DataRow[],
  build: (row: P, texts: readonly ScoredText[]) => Row,
): Promise<Prepared<Row>> => {
  const { maxLength, overlong = "truncate", mask = "assistant", onBadRow = "error" } = options
  for (const [key, value, only] of [
    ["overlong", overlong, ["truncate", "drop"]],
    ["mask", mask, ["assistant"]],
  ] as const)
    if (!(only as readonly string[]).includes(value))
      throw new SlothError("SLOTH_RL_DATA_OPTION", {
        what: `${key} is "${value}", which means nothing for rows that are completions of a prompt.`,
        next: `Leave it out, or set it to ${only.map((name) => `"${name}"`).join(" or ")}.`,
        fields: { key, value },
      })
  if (maxLength !== undefined && (!Number.isInteger(maxLength) || maxLength < 2))
    throw new SlothError("SLOTH_DATA_MAX_LENGTH", {
      what: `The maximum length is ${maxLength}.`,
      next: "Give a whole number of tokens, at least 2.",
      fields: { maxLength },
    })
  const reasons: { origin: RowOrigin; reason: string }[] = []
  const skipped = new Set<number>()
  const skip = (error: unknown, origin: RowOrigin): void => {
    if (onBadRow !== "skip" || !isSlothError(error) || error.code === "SLOTH_TEMPLATE_MISSING") throw error
    skipped.add(origin.index)
    if (reasons.length < 5) reasons.push({ origin, reason: error.what })
  }
  const parsed: { readonly row: P; readonly texts: readonly DataRow[] }[] = []
  for (const [index, source] of sources.entries())
    try {
      for (const row of parse(source, index)) parsed.push({ row, texts: texts(row).map(normalised) })
    } catch (error) {
      skip(error, { index, file: source.file, line: source.line })
    }
  // Texts of one row of the data set go into different batches, because a batch is told apart by rows.
  const batches: DataRow[][] = []
  const places = parsed.map(({ texts: list }) =>
    list.map((text): readonly [number, number] => {
      let batch = 0
      while (batches[batch]?.at(-1)?.origin.index === text.origin.index) batch++
      return [batch, (batches[batch] ??= []).push(text) - 1]
    }),
  )
  const results: Encoded[][] = []
  for (const batch of batches) results.push(await encode(batch, options))

  const examples: Row[] = []
  let [tokens, scoredTokens, longest, truncated, dropped, identical] = [0, 0, 0, 0, 0, 0]
  for (const [at, { row }] of parsed.entries()) {
    const made = places[at]!.map(([batch, i]) => results[batch]![i])
    const error = made.find((text): text is SlothError => isSlothError(text))
    if (error !== undefined) {
      skip(error, row.origin)
      continue
    }
    const encoded = made as (ScoredText | undefined)[]
    const over = maxLength !== undefined && encoded.some((text) => text !== undefined && text.tokens.length > maxLength)
    const cut = encoded.map((text) =>
      text === undefined || maxLength === undefined || text.tokens.length <= maxLength
        ? text
        : { tokens: text.tokens.slice(0, maxLength), scored: text.scored.slice(0, maxLength) },
    )
    if ((over && overlong === "drop") || cut.some((text) => text === undefined || !text.scored.includes(1))) {
      dropped++
      continue
    }
    const whole = cut as ScoredText[]
    if (over) truncated++
    for (const text of whole) {
      tokens += text.tokens.length
      longest = Math.max(longest, text.tokens.length)
      scoredTokens += text.scored.reduce((n, bit) => n + bit, 0)
    }
    if (whole.length > 1 && Buffer.compare(bytesOf(whole[0]!), bytesOf(whole[1]!)) === 0) identical++
    examples.push(build(row, whole))
  }
  if (examples.length === 0)
    throw new SlothError("SLOTH_RL_NOTHING_LEFT", {
      what: `None of ${sources.length} rows can be learnt from.`,
      why: [
        ...(dropped > 0
          ? [`${dropped} are left out because of the limit of ${maxLength} tokens or have no scored token`]
          : []),
        ...(skipped.size > 0 ? [`${skipped.size} are faulty, the first: ${reasons[0]!.reason}`] : []),
      ].join("; "),
      next: "Raise maxLength, or mend the rows.",
      fields: { rows: sources.length, dropped, skipped: skipped.size, maxLength },
    })
  return {
    examples,
    forms: [...new Set(parsed.map(({ row }) => row.form))],
    report: {
      rows: sources.length,
      examples: examples.length,
      tokens,
      scoredTokens,
      longest,
      truncated,
      dropped,
      skipped: skipped.size,
      identical,
      reasons,
    },
  }
}

const bytesOf = ({ tokens, scored }: ScoredText): Buffer =>
  Buffer.concat([
    Buffer.from(tokens.buffer, tokens.byteOffset, tokens.byteLength),
    Buffer.from(scored.buffer, scored.byteOffset, scored.byteLength),
  ])

const finish = <Row extends { readonly row: number }>(
  { examples, report, forms }: Prepared<Row>,
  options: PreferenceOptions,
  kind: string,
  digest: (row: Row) => readonly (string | Buffer)[],
  texts: (row: Row) => readonly (readonly [string, ScoredText])[],
): PreferenceData<Row> => {
  const hash = createHash("sha256")
  for (const example of examples) for (const part of digest(example)) hash.update(part)
  const ids = [...new Set(examples.map((example) => example.row))]
  const held = new Set(
    Array.from(splitHeldOut(ids.length, options.heldOut ?? 0, options.seed ?? 0).heldOut, (i) => ids[i]!),
  )
  const count = (n: number): string => n.toLocaleString("en-US")
  const note = (n: number, text: string): string[] => (n === 0 ? [] : [`${count(n)} ${text}`])
  const { tokens, scoredTokens, longest } = report
  return {
    preview: previewCompletions(texts(examples[0]!), options.tokenizer),
    summary: [
      `${count(examples.length)} examples from ${count(report.rows)} ${report.rows === 1 ? "row" : "rows"}`,
      `${count(tokens)} tokens, ${count(scoredTokens)} of them scored; the longest text has ${count(longest)}`,
      ...report.reasons.map(({ reason }) => `left out: ${reason}`),
    ].join("\n"),
    examples: examples.filter((example) => !held.has(example.row)),
    heldOut: examples.filter((example) => held.has(example.row)),
    examplesHash: hash.digest("hex"),
    report,
    statement: [
      `Recognised ${count(report.rows)} ${report.rows === 1 ? "row" : "rows"} of ${kind} (${forms.map((f) => words[f]).join(", ")})`,
      ...note(report.truncated, "cut at the limit"),
      ...note(report.dropped, "left out for want of room"),
      ...note(report.skipped, "left out as faulty"),
      ...note(report.identical, "with equal completions"),
    ]
      .join("; ")
      .concat("."),
  }
}

/**
 * Opens rows of preference pairs, in files or given as objects, and tokenises them with the model's chat template: of a conversation the answers of the completion are
 * scored with their end-of-turn tokens, of texts the completion with an eos.
 * Errors: those of `readRows`, `prepareExamples` and {@link preferenceRow}; SLOTH_DATA_EMPTY, SLOTH_RL_NOTHING_LEFT.
 */
export const openPreferences = async (
  source: string | readonly string[] | readonly object[],
  options: PreferenceOptions,
): Promise<PreferenceData<PreferenceExample>> => {
  const prepared = await prepare(
    await readSource(source, options),
    options,
    (row, index) => [preferenceRow(row, index)],
    (row) => [row.chosen, row.rejected, ...(row.gold === undefined ? [] : [row.gold])],
    (row, [chosen, rejected, gold]): PreferenceExample => ({
      chosen: chosen!,
      rejected: rejected!,
      ...(gold === undefined ? {} : { gold }),
      ...(row.reference === undefined ? {} : { reference: row.reference }),
      ...(row.margin === undefined ? {} : { margin: row.margin }),
      row: row.origin.index,
    }),
  )
  return finish(
    prepared,
    options,
    "preference pairs",
    (example) => [
      bytesOf(example.chosen),
      bytesOf(example.rejected),
      ...(example.gold === undefined ? [] : [bytesOf(example.gold)]),
      JSON.stringify([example.reference ?? null, example.margin ?? null]),
    ],
    ({ chosen, rejected, gold }) => [
      ["chosen", chosen],
      ["rejected", rejected],
      ...(gold === undefined ? [] : [["gold", gold] as const]),
    ],
  )
}

/**
 * Opens rows of rated completions; pairs are taken as two ratings each. Errors: as {@link openPreferences}.
 */
export const openRatings = async (
  source: string | readonly string[] | readonly object[],
  options: PreferenceOptions,
): Promise<PreferenceData<RatedExample>> => {
  const prepared = await prepare(
    await readSource(source, options),
    options,
    ratedRows,
    (row) => [row.completion],
    (row, [text]): RatedExample => ({
      text: text!,
      desirable: row.desirable,
      ...(row.reference === undefined ? {} : { reference: row.reference }),
      row: row.origin.index,
    }),
  )
  return finish(
    prepared,
    options,
    "rated completions",
    (example) => [bytesOf(example.text), JSON.stringify([example.desirable, example.reference ?? null])],
    ({ text, desirable }) => [[desirable ? "rated good" : "rated bad", text]],
  )
}
