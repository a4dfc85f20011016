import { cachedContext, PagedCache, type KvCacheFormat } from "@sloth/infer"
import type { CausalLM } from "@sloth/model"
import { recordRows } from "@sloth/tensor"
import type { TrainingUnit } from "@sloth/train"

/** A unit as large as the completions of a prompt can become; units of equal prompts and counts are the same object. */
export const forecastUnits = (maxCompletion: number): ((prompt: number, count: number) => TrainingUnit) => {
  const made = new Map<string, TrainingUnit>()
  return (prompt, count) => {
    const key = `${prompt}:${count}`
    const known = made.get(key)
    if (known !== undefined) return known
    const own = maxCompletion - 1
    const shared = count > 1
    const segments = shared
      ? [
          { length: prompt, parent: null },
          ...(own === 0 ? [] : Array.from({ length: count }, () => ({ length: own, parent: 0 }))),
        ]
      : [{ length: prompt + own, parent: null }]
    const rows = prompt + count * own
    const unit: TrainingUnit = {
      tokens: new Int32Array(rows),
      segments,
      scoredRows: Int32Array.from({ length: count * maxCompletion }, (_, i) =>
        i < count ? prompt - 1 : prompt + i - count,
      ),
      targets: new Int32Array(count * maxCompletion),
      sourceTokens: count * (prompt + maxCompletion),
      row: 0,
    }
    made.set(key, unit)
    return unit
  }
}

/** Completions of each piece when a group is cut to a budget of tokens, as `sampledUnits` cuts it when all completions have `own + 1` tokens. */
export const pieces = (prompt: number, own: number, count: number, tokenBudget: number): number[] => {
  const fits = Math.max(1, own === 0 ? count : Math.floor((tokenBudget - prompt) / own))
  return Array.from({ length: Math.ceil(count / fits) }, (_, i) => Math.min(fits, count - i * fits))
}

/** Rows of a prompt pass; what the generator takes at most. */
export const PREFILL_ROWS = 1024

/** Tokens that the cache needs when `atOnce` completions of the longest prompts grow to their end. */
export const cacheTokens = (
  prompts: readonly number[],
  options: {
    readonly completions: number
    readonly maxCompletion: number
    readonly atOnce: number
    readonly context: number
  },
): number => {
  const { completions, maxCompletion, atOnce, context } = options
  const block = 16
  const groups = Math.max(1, Math.ceil(atOnce / completions))
  const longest = [...prompts].sort((a, b) => b - a).slice(0, groups)
  // Whole blocks of a prompt are shared; the last row of it and what follows are each completion's own.
  const own = (prompt: number): number =>
    Math.ceil((Math.min(prompt + maxCompletion, context) - Math.floor((prompt - 1) / block) * block) / block) * block
  const shared = longest.reduce((n, prompt) => n + Math.ceil(prompt / block) * block, 0)
  // Admission keeps two blocks free for each text.
  return shared + atOnce * (own(longest[0] ?? 1) + 2 * block)
}

/**
 * Generation at its fullest, on a backend that counts: a pass over prompts and a pass of single rows with their logits beside a full cache.
 */
export const rehearseRollout = (
  model: CausalLM,
  options: {
    readonly cacheTokens: number
    readonly atOnce: number
    readonly promptTokens: number
    readonly kvCache: KvCacheFormat
    /** True where completions are drawn from two models at once. */
    readonly twin?: boolean
    /** Prompts that are kept for the step. */
    readonly kept?: number
  },
): void => {
  const { engine } = model
  const { twin = false } = options
  using cache = new PagedCache(model, { maxTokens: options.cacheTokens, format: options.kvCache, twin })
  const [vocab] = model.head.weight.shape as [number, number]
  const pass = (lengths: readonly number[]): void => {
    const parts = lengths.map((rows) => ({ sequence: cache.create(), rows }))
    for (const { sequence, rows } of parts) cache.reserve(sequence, rows)
    engine.scope(() => {
      const rows = lengths.reduce((a, b) => a + b, 0)
      // What the first of two models has said lies there while the second reads.
      for (const memory of twin ? [cache, cache.twin] : [cache]) {
        model.hidden(cachedContext(engine, memory, parts), engine.from(new Int32Array(rows)))
        engine.empty([Math.min(rows, options.atOnce), vocab])
      }
    })
    for (const { sequence } of parts) cache.release(sequence)
  }
  const all = cache.create()
  cache.reserve(all, Math.floor(options.cacheTokens / 16) * 16)
  cache.release(all)
  const kept = Array.from({ length: options.kept ?? 0 }, () => {
    const parts = [{ sequence: cache.create(), rows: Math.min(PREFILL_ROWS, options.promptTokens) }]
    const { sequence, rows } = parts[0]!
    const keep = recordRows(rows)
    cache.reserve(sequence, rows)
    engine.scope(() =>
      model.hidden(cachedContext(engine, cache, parts, true, keep?.memo), engine.from(new Int32Array(rows))),
    )
    cache.release(sequence)
    return keep?.known
  })
  pass([Math.min(PREFILL_ROWS, options.promptTokens * options.atOnce)])
  pass(Array.from({ length: options.atOnce }, () => 1))
  for (const known of kept) known?.[Symbol.dispose]()
}
