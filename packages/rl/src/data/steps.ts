import { createHash } from "node:crypto"
import { isSlothError, SlothError } from "@sloth/core"
import { describeOrigin, listValue, splitHeldOut, type PreviewPiece, type RowOrigin, type SourceRow } from "@sloth/data"
import { textPrompt } from "@sloth/infer"
import type { Tokenizer } from "@sloth/model"
import type { StepsExample } from "./examples.ts"
import type { PreferenceData, PreferenceOptions } from "./open.ts"
import { readSource } from "./source.ts"

/** What stands after every step. Its token is where the step is judged. */
export const STEP_SEPARATOR = "\n"

const count = (n: number): string => n.toLocaleString("en-US")

interface StepsRow {
  readonly prompt: string
  readonly steps: readonly string[]
  readonly labels: readonly boolean[]
}

/** Reads a row of `prompt`, `completions` (or `steps`) and `labels`, one a step. Errors: SLOTH_RL_STEPS. */
export const stepsRow = ({ row, file, line }: SourceRow, index: number): StepsRow => {
  const origin: RowOrigin = { index, file, line }
  const wrong = (what: string, next: string): SlothError =>
    new SlothError("SLOTH_RL_STEPS", {
      what: `${describeOrigin(origin)}: ${what}`,
      next,
      fields: { row: index, file, line },
    })
  const columns = (typeof row === "object" && row !== null ? row : {}) as Readonly<Record<string, unknown>>
  const steps = listValue(columns["completions"] ?? columns["steps"])
  const labels = listValue(columns["labels"])
  if (typeof columns["prompt"] !== "string" || steps === undefined || labels === undefined)
    throw wrong(
      `there are no rated steps (columns: ${Object.keys(columns).join(", ") || "none"}).`,
      'Give "prompt", "completions" (the steps of a solution) and "labels" (true for a right step, one each).',
    )
  if (steps.length === 0 || steps.some((step) => typeof step !== "string" || step === ""))
    throw wrong("a step is empty or no text.", "Mend or remove the row.")
  if (labels.length !== steps.length || labels.some((label) => ![true, false, 0, 1].includes(label as boolean)))
    throw wrong(
      `there are ${steps.length} steps and ${labels.length} labels, or a label is neither true nor false.`,
      "Give one label a step.",
    )
  return {
    prompt: columns["prompt"],
    steps: steps as string[],
    labels: labels.map((label) => label === true || label === 1),
  }
}

/** Token ids of a solution and where its steps end: prompt, steps and the separator after each are tokenised one by one. Steps beyond `maxLength` tokens are left out. */
export const stepTokens = (
  tokenizer: Tokenizer,
  prompt: string,
  steps: readonly string[],
  maxLength = Number.POSITIVE_INFINITY,
): { readonly ids: readonly number[]; readonly ends: readonly number[] } => {
  const separator = tokenizer.encode(STEP_SEPARATOR)
  const ids = [...textPrompt(tokenizer, prompt)]
  const ends: number[] = []
  for (const step of steps) {
    const next = [...tokenizer.encode(step), ...separator]
    if (ids.length + next.length > maxLength) break
    ids.push(...next)
    ends.push(ids.length - 1)
  }
  return { ids, ends }
}

/**
 * Opens solutions whose steps are rated, in files or given as objects. Prompt, steps and the separator after each are tokenised one by one, as TRL does. What lies beyond
 * `maxLength` is left out, step by step; a row of which no step is left is dropped.
 * Errors: those of `readRows`; SLOTH_RL_STEPS, SLOTH_DATA_EMPTY, SLOTH_RL_NOTHING_LEFT, SLOTH_RL_DATA_OPTION.
 */
export const openSteps = async (
  source: string | readonly string[] | readonly object[],
  options: PreferenceOptions,
): Promise<PreferenceData<StepsExample>> => {
  const {
    tokenizer,
    maxLength = Number.POSITIVE_INFINITY,
    overlong = "truncate",
    mask = "assistant",
    onBadRow,
  } = options
  if (overlong === "split" || mask !== "assistant")
    throw new SlothError("SLOTH_RL_DATA_OPTION", {
      what: overlong === "split" ? 'overlong is "split".' : `mask is "${mask}".`,
      why: "Solutions are judged step by step.",
      next: "Leave it out.",
      fields: { overlong, mask },
    })
  const sources = await readSource(source, options)
  const reasons: { origin: RowOrigin; reason: string }[] = []
  const hash = createHash("sha256")
  const examples: StepsExample[] = []
  let preview: PreviewPiece[] = []
  let [tokens, scoredTokens, longest, truncated, dropped, skipped, right] = [0, 0, 0, 0, 0, 0, 0]
  for (const [index, row] of sources.entries()) {
    let read: StepsRow
    try {
      read = stepsRow(row, index)
    } catch (error) {
      if (onBadRow !== "skip" || !isSlothError(error)) throw error
      skipped++
      if (reasons.length < 5) reasons.push({ origin: { index, file: row.file, line: row.line }, reason: error.what })
      continue
    }
    const { ids, ends } = stepTokens(tokenizer, read.prompt, read.steps, maxLength)
    const over = ends.length < read.steps.length
    if (ends.length === 0 || (over && overlong === "drop")) {
      dropped++
      continue
    }
    if (over) truncated++
    const labels = read.labels.slice(0, ends.length)
    if (examples.length === 0)
      preview = [
        { text: read.prompt, scored: false },
        ...labels.flatMap((label, i) => [
          { text: `\n${label ? "right" : "wrong"}: `, scored: false },
          { text: read.steps[i]!, scored: true },
        ]),
      ]
    examples.push({ tokens: Int32Array.from(ids), ends: Int32Array.from(ends), labels, row: index })
    hash.update(JSON.stringify([ids, ends, labels]))
    tokens += ids.length
    longest = Math.max(longest, ids.length)
    scoredTokens += ends.length
    right += labels.filter(Boolean).length
  }
  if (examples.length === 0)
    throw new SlothError("SLOTH_RL_NOTHING_LEFT", {
      what: `None of ${sources.length} rows can be learnt from.`,
      why: `${dropped} are longer than the limit${skipped > 0 ? `, ${skipped} are faulty, the first: ${reasons[0]!.reason}` : ""}.`,
      next: "Raise maxLength, or mend the rows.",
      fields: { rows: sources.length, dropped, skipped, maxLength: options.maxLength },
    })
  const { heldOut } = splitHeldOut(examples.length, options.heldOut ?? 0, options.seed ?? 0)
  const held = new Set(Array.from(heldOut, (i) => examples[i]!.row))
  const note = (n: number, text: string): string[] => (n === 0 ? [] : [`${count(n)} ${text}`])
  return {
    examples: examples.filter(({ row }) => !held.has(row)),
    heldOut: examples.filter(({ row }) => held.has(row)),
    examplesHash: hash.digest("hex"),
    preview,
    summary: [
      `${count(examples.length)} examples from ${count(sources.length)} ${sources.length === 1 ? "row" : "rows"}`,
      `${count(scoredTokens)} steps, ${count(right)} of them right; ${count(tokens)} tokens, the longest text has ${count(longest)}`,
      ...reasons.map(({ reason }) => `left out: ${reason}`),
    ].join("\n"),
    statement: `${[
      `Recognised ${count(sources.length)} ${sources.length === 1 ? "row" : "rows"} of rated steps`,
      ...note(truncated, "cut at the limit"),
      ...note(dropped, "left out for want of room"),
      ...note(skipped, "left out as faulty"),
    ].join("; ")}.`,
    report: {
      rows: sources.length,
      examples: examples.length,
      tokens,
      scoredTokens,
      longest,
      truncated,
      dropped,
      skipped,
      identical: 0,
      reasons,
    },
  }
}
