import type { DataRow, MaskMode } from "@sloth/data"
import type { Evaluation } from "@sloth/train"
import type { SlothContext } from "./context.ts"
import { requireFinite } from "./finite.ts"
import type { OpenedModel } from "./opened-model.ts"

/** Rows: a file, several, or objects. */
export type Rows = string | readonly string[] | readonly object[]

/** How rows are read for scoring and evaluation. */
export interface RowOptions {
  /** Which tokens of a conversation count; `assistant` when absent. */
  readonly mask?: MaskMode
  /** Most tokens of a row, the rest is cut off; the model's context when absent. */
  readonly maxLength?: number
  /** Chat template source; the model's own when absent. */
  readonly template?: string
  /** Most tokens in a pass. */
  readonly tokenBudget?: number
  readonly signal?: AbortSignal
}

/** Log-probs of one row. */
export interface RowScore {
  readonly tokens: readonly number[]
  /** Nats; null where a token is not scored, and always for the first. */
  readonly logprobs: readonly (number | null)[]
}

const isPaths = (rows: Rows): rows is string | readonly string[] =>
  typeof rows === "string" || (rows.length > 0 && rows.every((row) => typeof row === "string"))

const readAll = async (context: SlothContext, rows: Rows): Promise<readonly DataRow[]> => {
  const { readRows, recognise } = await import("@sloth/data")
  const source = isPaths(rows)
    ? await readRows(rows, { registry: await context.readers() })
    : (rows as readonly object[]).map((row) => ({ row }))
  return recognise(source).rows
}

/**
 * Log-probabilities of every row, in order: one result a row, also where nothing of it is scored.
 * Errors: those of reading and preparing data; SLOTH_DATA_NOTHING_SCORED when no row has a scored token; SLOTH_MODEL_NAN.
 */
export const scoreRows = async (
  context: SlothContext,
  opened: OpenedModel,
  rows: Rows,
  options: RowOptions = {},
): Promise<RowScore[]> => {
  const [{ prepareExamples }, { scoreExamples }] = await Promise.all([import("@sloth/data"), import("@sloth/train")])
  const data = await readAll(context, rows)
  const settings = {
    tokenizer: opened.tokenizer,
    template: options.template,
    maxLength: options.maxLength ?? opened.files.config.maxPositions,
    signal: options.signal,
  }
  const { examples } = await prepareExamples(data, { ...settings, mask: options.mask })
  const scored = await scoreExamples(opened.model, examples, options)
  for (const { logprobs } of scored) await requireFinite(opened, logprobs)
  const byRow = new Map(scored.map((result) => [result.row, result]))
  const out: RowScore[] = []
  for (const row of data) {
    const found = byRow.get(row.origin.index)
    if (found !== undefined) {
      out.push({ tokens: found.tokens, logprobs: found.logprobs })
      continue
    }
    // Nothing of the row is scored: its tokens are still told, so that results and rows stay side by side.
    const tokens =
      row.kind === "tokens"
        ? row.tokens
        : Array.from((await prepareExamples([row], { ...settings, mask: "all" })).examples[0]!.tokens)
    out.push({ tokens, logprobs: tokens.map(() => null) })
  }
  return out
}

/** Loss and perplexity over the scored tokens of all rows. Errors: as {@link scoreRows}. */
export const evaluateRows = async (
  context: SlothContext,
  opened: OpenedModel,
  rows: Rows,
  options: RowOptions = {},
): Promise<Evaluation & { readonly rows: number }> => {
  const [{ openDataset }, { evaluateExamples }] = await Promise.all([import("@sloth/data"), import("@sloth/train")])
  const data = await openDataset(rows, {
    tokenizer: opened.tokenizer,
    registry: await context.readers(),
    mask: options.mask,
    template: options.template,
    maxLength: options.maxLength ?? opened.files.config.maxPositions,
    signal: options.signal,
  })
  const evaluation = await evaluateExamples(opened.model, data.examples, options)
  await requireFinite(opened, [evaluation.loss])
  return { ...evaluation, rows: data.report.rows }
}
