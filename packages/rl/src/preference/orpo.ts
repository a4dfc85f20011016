import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import type { LogprobLoss } from "@sloth/train"
import type { PreferenceExample } from "../data/examples.ts"
import { openPreferences, rowObjective } from "../data/open.ts"
import { packCounts, unpackCounts, type StepCounts } from "../internal/counts.ts"
import { log1mexp, logSigmoid, sigmoid, sum } from "../internal/math.ts"
import { completionLogprobs, completionsUnit, pick, putGradient, type CompletionsUnit } from "./completions-unit.ts"
import { summarise } from "./reference-free.ts"

/** Settings of ORPO. */
export const OrpoSettingsSchema = Schema.Struct({
  beta: field.number({ description: "Weight of the odds ratio; lambda in the paper.", min: 0 }).pipe(withDefault(0.1)),
})

/** The log-probs of a pair and of its prompt, nats. */
export interface OrpoPair {
  readonly chosen: Float64Array
  readonly rejected: Float64Array
  /** Of the prompt's tokens, which ORPO learns too. */
  readonly prompt: Float64Array
}

// A mean log-prob of exactly 0 is what f32 makes of a completion the model is sure of, and its odds are infinite.
const SUREST = -1e-7

/** log odds of e^x with its derivative. */
const logOdds = (mean: number): readonly [number, number] => {
  const x = Math.min(mean, SUREST)
  return [x - log1mexp(x), 1 + 1 / Math.expm1(-x)]
}

/**
 * ORPO over pairs, as a part of a step with `counts.rows` pairs and `counts.tokens` tokens in chosen texts: the mean negative log-prob of the chosen texts, prompts
 * included, minus beta times the mean log sigmoid of the log odds ratio. Source: Hong et al. 2024; as TRL 1.13.
 */
export const orpoLoss = (
  pairs: readonly OrpoPair[],
  settings: { readonly beta: number },
  counts: StepCounts,
): {
  readonly loss: number
  readonly gradients: readonly { readonly chosen: number; readonly rejected: number; readonly prompt: number }[]
  readonly metrics: Readonly<Record<string, number>>
} => {
  const { beta } = settings
  let loss = 0
  const metrics = {
    nll_loss: 0,
    log_odds_ratio: 0,
    log_odds_chosen: 0,
    "rewards/chosen": 0,
    "rewards/rejected": 0,
    "rewards/accuracies": 0,
    "rewards/margins": 0,
  }
  const nll = counts.tokens === 0 ? 0 : 1 / counts.tokens
  const gradients = pairs.map((pair) => {
    const [chosen, rejected] = [summarise(pair.chosen, true), summarise(pair.rejected, true)]
    const [oddsChosen, slopeChosen] = logOdds(chosen.x)
    const [oddsRejected, slopeRejected] = logOdds(rejected.x)
    const odds = oddsChosen - oddsRejected
    const negative = -sum(pair.chosen) - sum(pair.prompt)
    loss += nll * negative - (beta * logSigmoid(odds)) / counts.rows
    metrics.nll_loss += nll * negative
    metrics.log_odds_ratio += logSigmoid(odds) / counts.rows
    metrics.log_odds_chosen += odds / counts.rows
    metrics["rewards/chosen"] += (beta * chosen.x) / counts.rows
    metrics["rewards/rejected"] += (beta * rejected.x) / counts.rows
    metrics["rewards/accuracies"] += (chosen.x > rejected.x ? 1 : 0) / counts.rows
    metrics["rewards/margins"] += (beta * (chosen.x - rejected.x)) / counts.rows
    const dOdds = (-beta * sigmoid(-odds)) / counts.rows
    return {
      chosen: dOdds * slopeChosen * chosen.share - nll,
      rejected: -dOdds * slopeRejected * rejected.share,
      prompt: -nll,
    }
  })
  return { loss, gradients, metrics }
}

/** Odds ratio preference optimisation: fine-tuning on the chosen texts and a preference in one, without a reference. Source: Hong et al. 2024. */
export const orpo = rowObjective<PreferenceExample, CompletionsUnit>()({
  name: "orpo",
  config: OrpoSettingsSchema,
  open: openPreferences,
  prepare: (rows) =>
    rows.map((example) => completionsUnit([example.chosen, example.rejected], example.row, { scorePrompt: true })),
  loss: (settings): LogprobLoss<CompletionsUnit> => ({
    kind: "logprobs",
    size: (unit) => packCounts(1, unit.completions[0]!.length + unit.prompt.length),
    compute: (batch) => {
      const [chosen, rejected] = [completionLogprobs(batch, 0), completionLogprobs(batch, 1)]
      const { loss, gradients, metrics } = orpoLoss(
        batch.units.map((unit, u) => ({
          chosen: chosen[u]!.policy,
          rejected: rejected[u]!.policy,
          prompt: pick(batch.logprobs, batch.starts[u]!, unit.prompt),
        })),
        settings as typeof OrpoSettingsSchema.Type,
        unpackCounts(batch.normaliser),
      )
      const dlogp = new Float64Array(batch.logprobs.length)
      for (const [u, unit] of batch.units.entries()) {
        putGradient(dlogp, batch.starts[u]!, unit.completions[0]!, gradients[u]!.chosen)
        putGradient(dlogp, batch.starts[u]!, unit.completions[1]!, gradients[u]!.rejected)
        putGradient(dlogp, batch.starts[u]!, unit.prompt, gradients[u]!.prompt)
      }
      return { loss, dlogp, metrics }
    },
  }),
})
