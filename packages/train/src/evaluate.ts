import type { Example } from "@sloth/data"
import type { CausalLM } from "@sloth/model"
import { divergenceLossPass, hostOutputs, lossPass, readLogprobs } from "./forward.ts"
import {
  computePart,
  gatherPart,
  referenceLogprobs,
  temperatureOf,
  wantedOutputs,
  type HostLoss,
  type HostPart,
} from "./host-loss.ts"
import { buildMicroBatch, splitUnits } from "./micro-batch.ts"
import { unitSize, type ObjectiveLoss, type TrainingUnit } from "./objective.ts"
import type { SyncedReference } from "./synced-reference.ts"
import { teacherPass } from "./teacher.ts"
import { unitFromExample } from "./sft.ts"
import { MICRO_BATCHES_AHEAD, yieldToLoop } from "./internal/yield.ts"

/** How rows are put together for a pass without gradients. */
export interface EvaluateOptions {
  /** Most tokens in a pass; 2048 when absent. */
  readonly tokenBudget?: number
  /** Stops between passes. */
  readonly signal?: AbortSignal
}

/** Loss of a model on rows. */
export interface Evaluation {
  /** Mean over all rows: nats per scored token for cross-entropies. */
  readonly loss: number
  /** exp(loss); undefined for objectives whose loss is not a cross-entropy. */
  readonly perplexity: number | undefined
  readonly tokens: number
  readonly scoredTokens: number
  readonly seconds: number
  readonly metrics: Readonly<Record<string, number>>
}

/** Evaluates units, dropout off. `loss` is the objective's; a plain cross-entropy when absent. */
export const evaluateUnits = async <Unit extends TrainingUnit>(
  model: CausalLM,
  units: readonly Unit[],
  options: EvaluateOptions & {
    readonly loss?: ObjectiveLoss<Unit>
    readonly reference?: SyncedReference
    readonly teacher?: CausalLM
  } = {},
): Promise<Evaluation> => {
  const { tokenBudget = 2048, signal, loss = { kind: "cross-entropy" } } = options
  const started = performance.now()
  const { engine } = model
  const batches = splitUnits(units, { tokenBudget, packing: true })
  const normaliser = units.reduce((n, u) => n + unitSize(loss, u), 0)
  const metrics: Record<string, number> = {}
  let total = 0
  const build = (indices: readonly number[]) => buildMicroBatch(indices.map((i) => units[i]!))
  if (loss.kind === "divergence" || (loss.kind === "cross-entropy" && loss.weights === undefined))
    for (let first = 0; first < batches.length; first += MICRO_BATCHES_AHEAD) {
      signal?.throwIfAborted()
      const group = batches.slice(first, first + MICRO_BATCHES_AHEAD).map(build)
      const sums = engine.keep(engine.zeros([group.length], "f64"))
      try {
        for (const [i, batch] of group.entries()) {
          if (loss.kind === "divergence") divergenceLossPass(model, batch, teacherPass(loss, options.teacher), sums, i)
          else lossPass(model, batch, sums, i)
          await yieldToLoop()
        }
        for (const sum of (await sums.read()) as Float64Array) total += sum / normaliser
      } finally {
        sums.dispose()
      }
    }
  else if (loss.kind === "cross-entropy")
    for (const indices of batches) {
      signal?.throwIfAborted()
      const batch = build(indices)
      const { logprobs } = await readLogprobs(model, batch)
      await yieldToLoop()
      for (const [u, unit] of batch.units.entries()) {
        const weights = loss.weights!(unit)
        for (let k = 0; k < weights.length; k++) total -= (weights[k]! * logprobs[batch.starts[u]! + k]!) / normaliser
      }
    }
  else {
    const add = (part: HostPart<Unit>): void => {
      const result = computePart(loss, part, gathered)
      total += result.loss
      for (const [name, value] of Object.entries(result.metrics)) metrics[name] = (metrics[name] ?? 0) + value
    }
    const gathers = loss.kind === "logprobs" && loss.gather !== undefined
    const gathered: (readonly number[])[] | undefined = gathers ? [] : undefined
    const waiting: HostPart<Unit>[] = []
    for (const indices of batches) {
      signal?.throwIfAborted()
      const batch = build(indices)
      const outputs = await hostOutputs(model, batch, wantedOutputs(loss as HostLoss), temperatureOf(loss as HostLoss))
      await yieldToLoop()
      const reference = await referenceLogprobs(model, loss as HostLoss, batch, options.reference)
      const part = { units: batch.units, starts: batch.starts, indices, normaliser, step: 0, outputs, reference }
      if (!gathers) add(part)
      else {
        // Rows that meet wait for each other: a few bytes a scored position.
        gatherPart(loss, part, gathered!)
        waiting.push(part)
      }
    }
    for (const part of waiting) add(part)
  }
  return {
    loss: total,
    perplexity: loss.kind === "cross-entropy" ? Math.exp(total) : undefined,
    tokens: units.reduce((n, u) => n + u.sourceTokens, 0),
    scoredTokens: units.reduce((n, u) => n + u.targets.length, 0),
    seconds: (performance.now() - started) / 1000,
    metrics,
  }
}

/** Loss and perplexity of a model on data examples, nats per scored token over all of them. */
export const evaluateExamples = (
  model: CausalLM,
  examples: readonly Example[],
  options: EvaluateOptions = {},
): Promise<Evaluation> =>
  evaluateUnits(
    model,
    examples.flatMap((e) => unitFromExample(e) ?? []),
    options,
  )

/** Log-probabilities of one row. */
export interface ScoredExample {
  readonly row: number
  readonly tokens: readonly number[]
  /** log p of every token given those before it, nats; null where the token is not scored, and always for the first. */
  readonly logprobs: readonly (number | null)[]
}

/** Log-probabilities of data examples, in their order, adapters on. */
export const scoreExamples = async (
  model: CausalLM,
  examples: readonly Example[],
  options: EvaluateOptions = {},
): Promise<ScoredExample[]> => {
  const { tokenBudget = 2048, signal } = options
  const units: TrainingUnit[] = []
  const source: number[] = []
  for (const [i, example] of examples.entries()) {
    const unit = unitFromExample(example)
    if (unit === undefined) continue
    units.push(unit)
    source.push(i)
  }
  const out = examples.map((e) => ({
    row: e.row,
    tokens: Array.from(e.tokens),
    logprobs: Array.from(e.tokens, (): number | null => null),
  }))
  for (const indices of splitUnits(units, { tokenBudget, packing: true })) {
    signal?.throwIfAborted()
    const batch = buildMicroBatch(indices.map((i) => units[i]!))
    const { logprobs } = await readLogprobs(model, batch)
    await yieldToLoop()
    for (const [u, i] of indices.entries()) {
      const { scoredRows } = units[i]!
      const target = out[source[i]!]!.logprobs
      for (let k = 0; k < scoredRows.length; k++) target[scoredRows[k]! + 1] = logprobs[batch.starts[u]! + k]!
    }
  }
  return out
}
