import * as Schema from "effect/Schema"
import { field, SlothError, withDefault } from "@sloth/core"
import type { LogprobLoss } from "@sloth/train"
import type { RatedExample } from "../data/examples.ts"
import { openRatings, rowObjective } from "../data/open.ts"
import { requireWholeStep } from "../internal/counts.ts"
import { logSigmoid, sigmoid } from "../internal/math.ts"
import { putGradient } from "./completions-unit.ts"
import {
  ratedCounts,
  ratedLogprobs,
  ratedMetrics,
  ratedSize,
  ratedSums,
  ratedUnits,
  type RatedCounts,
  type RatedLogprobs,
  type RatedResult,
  type RatedUnit,
} from "./rated-unit.ts"

/** Settings of BCO. */
export const BcoSettingsSchema = Schema.Struct({
  beta: field
    .number({ description: "How strongly the policy is kept near the reference.", above: 0 })
    .pipe(withDefault(0.1)),
})

/** Mean reward of everything seen, and how many rows that was. */
export interface RunningMean {
  readonly mean: number
  readonly count: number
}

/** The running mean with more rewards in it. */
export const updateRunningMean = (running: RunningMean, rewards: readonly number[]): RunningMean => {
  const count = running.count + rewards.length
  const added = rewards.reduce((n, r) => n + r, 0)
  return count === 0 ? running : { mean: (running.mean * running.count + added) / count, count }
}

/**
 * Binary classifier optimisation over rated completions, as a part of a step with `counts.rows` rows. `delta` is the running mean of rewards, this step's included;
 * it has no gradient. Source: Jung et al. 2024; as TRL 1.13.
 */
export const bcoLoss = (
  rows: readonly RatedLogprobs[],
  settings: { readonly beta: number },
  counts: RatedCounts,
  delta: number,
): RatedResult => {
  const { beta } = settings
  const sums = rows.map(ratedSums)
  let loss = 0
  const gradients = Float64Array.from(rows, ({ desirable }, i) => {
    const sign = desirable ? 1 : -1
    const z = sign * (beta * sums[i]!.ratio - delta)
    loss -= logSigmoid(z) / counts.rows
    return (-sign * beta * sigmoid(-z)) / counts.rows
  })
  return { loss, gradients, metrics: ratedMetrics(rows, sums, beta, counts) }
}

/**
 * Binary classifier optimisation: rewards against the mean of all rewards so far. The mean lives in memory, so a run cannot be resumed: SLOTH_RL_BCO_RESUME.
 * Source: Jung et al. 2024; TRL 1.13, `BCOTrainer` without its density ratio.
 */
export const bco = rowObjective<RatedExample, RatedUnit>()({
  name: "bco",
  config: BcoSettingsSchema,
  open: openRatings,
  prepare: (rows) => ratedUnits(rows),
  loss: (settings): LogprobLoss<RatedUnit> => {
    let running: RunningMean = { mean: 0, count: 0 }
    let next = 1
    return {
      kind: "logprobs",
      reference: true,
      size: ratedSize,
      compute: (batch) => {
        requireWholeStep(batch, ratedSize, "BCO")
        const rows = ratedLogprobs(batch, false)
        const { beta } = settings as typeof BcoSettingsSchema.Type
        if (batch.step > 0) {
          if (batch.step !== next)
            throw new SlothError("SLOTH_RL_BCO_RESUME", {
              what: `BCO is at step ${batch.step} without the mean reward of the steps before.`,
              why: "The mean is not part of a checkpoint.",
              next: "Start a new run; its adapter setting may name the adapter of the old one.",
              fields: { step: batch.step },
            })
          next++
          running = updateRunningMean(
            running,
            rows.map((row) => beta * ratedSums(row).ratio),
          )
        }
        const counts = ratedCounts(batch.normaliser)
        const { loss, gradients, metrics } = bcoLoss(rows, { beta }, counts, running.mean)
        const dlogp = new Float64Array(batch.logprobs.length)
        for (const [u, { completions }] of batch.units.entries())
          putGradient(dlogp, batch.starts[u]!, completions[0]!, gradients[u]!)
        return { loss, dlogp, metrics: { ...metrics, delta: (running.mean * rows.length) / counts.rows } }
      },
    }
  },
})
