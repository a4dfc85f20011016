import { SlothError } from "@sloth/core"
import { packedContext, type CausalLM } from "@sloth/model"
import { gatherRows, linearLogprobs, SequenceLayout, type Segment } from "@sloth/tensor"

/** Completions of one prompt to be scored. */
export interface ScoreRequest {
  readonly prompt: readonly number[]
  readonly completions: readonly (readonly number[])[]
}

/** Settings of {@link scoreCompletions}. */
export interface ScoreOptions {
  /** Most packed tokens in one pass; a longer prompt with one completion gets a pass of its own. */
  readonly tokenBudget?: number
  /** False scores with the base model. */
  readonly adapters?: boolean
}

interface Unit {
  readonly tokens: number[]
  readonly segments: { readonly length: number; readonly parent: number | null }[]
  /** Row that predicts, token it predicts, and where the result goes. */
  readonly scored: { readonly row: number; readonly target: number; readonly to: Float64Array; readonly at: number }[]
}

/** The forest that training makes of a prompt and some completions: the same rows in the same order, so that the kernels do the same sums. */
const unitOf = (
  prompt: readonly number[],
  completions: readonly (readonly number[])[],
  to: readonly Float64Array[],
): Unit => {
  const alone = completions.length === 1
  const tokens = [...prompt]
  const segments: Unit["segments"] = alone ? [] : [{ length: prompt.length, parent: null }]
  const scored: Unit["scored"] = completions.map((c, i) => ({
    row: prompt.length - 1,
    target: c[0]!,
    to: to[i]!,
    at: 0,
  }))
  for (const [i, completion] of completions.entries()) {
    // The last token predicts nothing, so it needs no row.
    const own = completion.slice(0, -1)
    for (const [t, token] of own.entries()) {
      scored.push({ row: tokens.length, target: completion[t + 1]!, to: to[i]!, at: t + 1 })
      tokens.push(token)
    }
    if (own.length > 0 && !alone) segments.push({ length: own.length, parent: 0 })
  }
  if (alone) segments.push({ length: tokens.length, parent: null })
  return { tokens, segments, scored }
}

/**
 * Log-probs of given completions in nats, a Float64Array `[tokens]` for each, by a packed pass with the training kernels: what the forward pass of an update computes,
 * without its tape. A prompt is computed once for its completions. Errors: SLOTH_SCORE_EMPTY for a prompt or completion without tokens.
 */
export const scoreCompletions = async (
  model: CausalLM,
  requests: readonly ScoreRequest[],
  options: ScoreOptions = {},
): Promise<Float64Array[][]> => {
  const budget = options.tokenBudget ?? 8192
  const results = requests.map(({ completions }) => completions.map((c) => new Float64Array(c.length)))
  const units: Unit[] = []
  for (const [r, { prompt, completions }] of requests.entries()) {
    const empty = completions.findIndex((c) => c.length === 0)
    if (prompt.length === 0 || empty >= 0)
      throw new SlothError("SLOTH_SCORE_EMPTY", {
        what: prompt.length === 0 ? `Prompt ${r} has no tokens.` : `Completion ${empty} of prompt ${r} has no tokens.`,
        next: "Give at least one token of each.",
        fields: { request: r },
      })
    let from = 0
    let used = prompt.length
    for (let i = 0; i <= completions.length; i++) {
      const size = (completions[i]?.length ?? 1) - 1
      if (i > from && (i === completions.length || used + size > budget)) {
        units.push(unitOf(prompt, completions.slice(from, i), results[r]!.slice(from, i)))
        from = i
        used = prompt.length
      }
      used += size
    }
  }
  let batch: Unit[] = []
  let rows = 0
  for (const [i, unit] of units.entries()) {
    if (batch.length > 0 && rows + unit.tokens.length > budget) {
      await pass(model, batch, options.adapters ?? true)
      batch = []
      rows = 0
    }
    batch.push(unit)
    rows += unit.tokens.length
    if (i === units.length - 1) await pass(model, batch, options.adapters ?? true)
  }
  return results
}

const pass = async (model: CausalLM, units: readonly Unit[], adapters: boolean): Promise<void> => {
  const { engine, head } = model
  const segments: Segment[] = []
  const scored: { row: number; target: number; to: Float64Array; at: number }[] = []
  const tokens: number[] = []
  for (const unit of units) {
    const [first, start] = [segments.length, tokens.length]
    let at = start
    for (const { length, parent } of unit.segments) {
      segments.push({ start: at, length, parent: parent === null ? null : first + parent })
      at += length
    }
    for (const s of unit.scored) scored.push({ ...s, row: start + s.row })
    for (const token of unit.tokens) tokens.push(token)
  }
  const logprobs = engine.noGrad(() =>
    engine.scope(() => {
      const context = packedContext(engine, new SequenceLayout(segments), { adapters })
      const hidden = model.hidden(context, engine.from(Int32Array.from(tokens))) // [tokens, hidden]
      const rows = gatherRows(hidden, engine.from(Int32Array.from(scored, (s) => s.row))) // [scored, hidden]
      const targets = engine.from(Int32Array.from(scored, (s) => s.target))
      return linearLogprobs(rows, head.weight.tensor, targets, head).logprobs
    }),
  )
  const reading = logprobs.readFloats()
  logprobs.dispose()
  const values = await reading
  for (const [i, { to, at }] of scored.entries()) to[at] = values[i]!
}
