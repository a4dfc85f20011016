import * as Schema from "effect/Schema"
import { field, SlothError, withDefault } from "@sloth/core"
import type { LogprobLoss } from "@sloth/train"
import type { PreferenceExample } from "../data/examples.ts"
import { openPreferences, rowObjective } from "../data/open.ts"
import { packCounts, unpackCounts, type StepCounts } from "../internal/counts.ts"
import { sum } from "../internal/math.ts"
import { completionLogprobs, completionsUnit, putGradient, type CompletionsUnit } from "./completions-unit.ts"
import { isPerToken, referenceFreePair, summarise, type ReferenceFreeLoss } from "./reference-free.ts"

/** Settings of TPO. */
export const TpoSettingsSchema = Schema.Struct({
  loss: field
    .choice(["sigmoid", "hinge", "ipo", "tpo-l"], {
      description: "Form of the preference loss; tpo-l takes means over tokens and asks for a margin.",
      aka: ["loss_type"],
    })
    .pipe(withDefault("sigmoid")),
  beta: field.number({ description: "Scale of the margin between the completions.", above: 0 }).pipe(withDefault(0.01)),
  gamma: field.number({ description: "Margin that tpo-l asks for.", aka: ["tpo_l_gamma"] }).pipe(withDefault(0.5)),
  nllWeight: field
    .number({
      description: "Weight of the mean negative log-prob of the gold completions' tokens.",
      min: 0,
      aka: ["tpo_alpha"],
    })
    .pipe(withDefault(1)),
  labelSmoothing: field
    .number({
      description: "Share of pairs that are the wrong way round.",
      min: 0,
      below: 0.5,
      aka: ["label_smoothing"],
    })
    .pipe(withDefault(0)),
})

/** Decoded {@link TpoSettingsSchema}. */
export type TpoSettings = typeof TpoSettingsSchema.Type

/** Log-probs of the three completions of a row, nats. */
export interface TpoTriple {
  readonly chosen: Float64Array
  readonly rejected: Float64Array
  readonly gold: Float64Array
}

/**
 * Triple preference optimisation over rows, as a part of a step with `counts.rows` rows and `counts.tokens` gold tokens. Source: Saeidi et al. 2024; as TRL 1.13.
 */
export const tpoLoss = (
  triples: readonly TpoTriple[],
  settings: TpoSettings,
  counts: StepCounts,
): {
  readonly loss: number
  readonly gradients: readonly { readonly chosen: number; readonly rejected: number; readonly gold: number }[]
  readonly metrics: Readonly<Record<string, number>>
} => {
  const loss: ReferenceFreeLoss = settings.loss === "tpo-l" ? "simpo" : settings.loss
  const perToken = isPerToken(loss)
  const nll = settings.nllWeight === 0 ? 0 : settings.nllWeight / counts.tokens
  let total = 0
  const metrics = {
    "rewards/chosen": 0,
    "rewards/rejected": 0,
    "rewards/accuracies": 0,
    "rewards/margins": 0,
    nll_loss: 0,
  }
  const gradients = triples.map((triple) => {
    const [chosen, rejected] = [summarise(triple.chosen, perToken), summarise(triple.rejected, perToken)]
    const pair = referenceFreePair(chosen.x, rejected.x, { ...settings, loss, alpha: 0 })
    const negative = -sum(triple.gold)
    total += pair.value / counts.rows + nll * negative
    metrics["rewards/chosen"] += (settings.beta * chosen.x) / counts.rows
    metrics["rewards/rejected"] += (settings.beta * rejected.x) / counts.rows
    metrics["rewards/accuracies"] += (chosen.x > rejected.x ? 1 : 0) / counts.rows
    metrics["rewards/margins"] += (settings.beta * (chosen.x - rejected.x)) / counts.rows
    metrics.nll_loss += counts.tokens === 0 ? 0 : negative / counts.tokens
    return {
      chosen: (pair.dChosen * chosen.share) / counts.rows,
      rejected: (pair.dRejected * rejected.share) / counts.rows,
      gold: -nll,
    }
  })
  return { loss: total, gradients, metrics }
}

/** Triple preference optimisation: a preference pair and a gold completion of one prompt, without a reference. Source: Saeidi et al. 2024. */
export const tpo = rowObjective<PreferenceExample, CompletionsUnit>()({
  name: "tpo",
  config: TpoSettingsSchema,
  open: openPreferences,
  prepare: (rows) =>
    rows.map((example) => {
      if (example.gold === undefined)
        throw new SlothError("SLOTH_RL_GOLD_MISSING", {
          what: `Row ${example.row} has no gold completion.`,
          why: "TPO learns from three completions of a prompt: chosen, rejected and gold.",
          next: 'Add the column "gold" (or "reference"), or use cpo, which learns the chosen completion.',
          fields: { row: example.row },
        })
      return completionsUnit([example.chosen, example.rejected, example.gold], example.row)
    }),
  loss: (settings): LogprobLoss<CompletionsUnit> => ({
    kind: "logprobs",
    size: (unit) => packCounts(1, unit.completions[2]!.length),
    compute: (batch) => {
      const [chosen, rejected, gold] = [0, 1, 2].map((k) => completionLogprobs(batch, k)) as [
        ReturnType<typeof completionLogprobs>,
        ReturnType<typeof completionLogprobs>,
        ReturnType<typeof completionLogprobs>,
      ]
      const { loss, gradients, metrics } = tpoLoss(
        batch.units.map((_, u) => ({
          chosen: chosen[u]!.policy,
          rejected: rejected[u]!.policy,
          gold: gold[u]!.policy,
        })),
        settings as TpoSettings,
        unpackCounts(batch.normaliser),
      )
      const dlogp = new Float64Array(batch.logprobs.length)
      for (const [u, { completions }] of batch.units.entries())
        for (const [k, side] of (["chosen", "rejected", "gold"] as const).entries())
          putGradient(dlogp, batch.starts[u]!, completions[k]!, gradients[u]![side])
      return { loss, dlogp, metrics }
    },
  }),
})
