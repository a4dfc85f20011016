import * as Schema from "effect/Schema"
import { decodeConfig, field, withDefault } from "@sloth/core"
import type { LogprobLoss } from "@sloth/train"
import type { RatedExample } from "../data/examples.ts"
import { openRatings, rowObjective } from "../data/open.ts"
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

const RunningMeanSchema = Schema.Struct({ mean: Schema.Finite, count: Schema.Finite })

/**
 * Binary classifier optimisation: rewards against the mean of all rewards so far, which checkpoints keep.
 * Source: Jung et al. 2024; TRL 1.13, `BCOTrainer` without its density ratio.
 */
export const bco = rowObjective<RatedExample, RatedUnit>()({
  name: "bco",
  config: BcoSettingsSchema,
  open: openRatings,
  prepare: (rows) => ratedUnits(rows),
  loss: (settings): LogprobLoss<RatedUnit> => {
    const { beta } = settings as typeof BcoSettingsSchema.Type
    let running: RunningMean = { mean: 0, count: 0 }
    // The step whose rewards are in the mean: its other micro-batches must not add them again.
    let counted = 0
    return {
      kind: "logprobs",
      reference: true,
      size: ratedSize,
      gather: (batch) => ratedLogprobs(batch, false).map((row) => [beta * ratedSums(row).ratio]),
      state: {
        save: () => running,
        restore: (saved) => {
          running = decodeConfig(RunningMeanSchema, saved, { name: "BCO's mean reward" })
        },
      },
      compute: (batch) => {
        if (batch.step > counted) {
          counted = batch.step
          running = updateRunningMean(
            running,
            batch.gathered!.map(([reward]) => reward!),
          )
        }
        const rows = ratedLogprobs(batch, false)
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
