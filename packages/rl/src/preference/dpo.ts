import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import type { LogprobBatch, LogprobLoss } from "@sloth/train"
import type { PreferenceExample } from "../data/examples.ts"
import { openPreferences, rowObjective } from "../data/open.ts"
import { packCounts, unpackCounts } from "../internal/counts.ts"
import { missingReference, syncedReference, syncedReferenceFields } from "../internal/reference.ts"
import { settingsError } from "../internal/settings.ts"
import { completionLogprobs, completionsUnit, putGradient, type CompletionsUnit } from "./completions-unit.ts"
import { DIVERGENCES } from "./divergence.ts"
import { DIVERGENCE_LOSSES, DPO_LOSSES, SORTING_LOSSES } from "./dpo-losses.ts"
import { dpoLoss, pairSums, type DpoMathSettings, type PairLogprobs, type PairSums } from "./dpo-math.ts"

/** Settings of DPO. */
export const DpoSettingsSchema = Schema.Struct({
  loss: Schema.Union([Schema.Literals(DPO_LOSSES), Schema.Array(Schema.Literals(DPO_LOSSES))])
    .annotate({ description: "The loss, or several that are added up.", aka: ["loss_type"] })
    .pipe(withDefault("sigmoid")),
  lossWeights: field
    .list(Schema.Finite, { description: "Weight of each loss; 1 each when absent.", aka: ["loss_weights"] })
    .pipe(Schema.optionalKey),
  beta: field
    .number({ description: "How strongly the policy is kept near the reference.", above: 0 })
    .pipe(withDefault(0.1)),
  labelSmoothing: field
    .number({
      description: "Share of pairs that are the wrong way round; read by robust, exo_pair, aot and aot_unpaired.",
      min: 0,
      below: 0.5,
      aka: ["label_smoothing"],
    })
    .pipe(withDefault(0)),
  divergence: field
    .choice(DIVERGENCES, {
      description: "The divergence that the policy is kept near the reference by.",
      aka: ["f_divergence_type"],
    })
    .pipe(withDefault("reverse_kl")),
  divergenceAlpha: field
    .number({ description: "Alpha of the alpha divergence.", aka: ["f_alpha_divergence_coef"] })
    .pipe(withDefault(0.5)),
  ldAlpha: field
    .number({
      description:
        "Weight of the tokens by which one completion of a pair is longer than the other (LD-DPO); 1 counts them fully.",
      min: 0,
      max: 1,
      aka: ["ld_alpha"],
    })
    .pipe(withDefault(1)),
  discopopTau: field
    .number({ description: "Temperature of the discopop loss.", above: 0, aka: ["discopop_tau"] })
    .pipe(withDefault(0.05)),
  reference: field
    .choice(["base", "row"], {
      description:
        "Where the reference's log-probs come from: the model as the run began with it, at every step (see referenceModel of the training settings); or the rows, which bring their sums.",
      aka: ["precompute_ref_log_probs"],
    })
    .pipe(withDefault("base")),
  ...syncedReferenceFields,
})

/** Decoded {@link DpoSettingsSchema}. */
export type DpoSettings = typeof DpoSettingsSchema.Type

/** A pair as a unit: chosen, then rejected. */
export interface PairUnit extends CompletionsUnit {
  /** Summed log-probs of the reference, nats. */
  readonly referenceSums?: { readonly chosen: number; readonly rejected: number }
}

/** A pair of completions as one forest, computed with its prompt once. */
export const pairUnit = (example: PreferenceExample): PairUnit => ({
  ...completionsUnit([example.chosen, example.rejected], example.row),
  ...(example.reference === undefined ? {} : { referenceSums: example.reference }),
})

/** Checks the settings and brings them into the form of the formulas. Errors: SLOTH_RL_SETTINGS. */
export const dpoMathSettings = (settings: DpoSettings): DpoMathSettings => {
  const losses = typeof settings.loss === "string" ? [settings.loss] : settings.loss
  const weights = settings.lossWeights ?? losses.map(() => 1)
  if (losses.length === 0 || weights.length !== losses.length)
    throw settingsError(
      "dpo",
      `there are ${losses.length} losses and ${weights.length} weights.`,
      "Give one weight for each loss, and at least one loss.",
      { losses, weights },
    )
  const plain = losses.filter((name) => !DIVERGENCE_LOSSES.includes(name))
  if (settings.divergence !== "reverse_kl" && plain.length > 0)
    throw settingsError(
      "dpo",
      `${plain.join(" and ")} cannot take the divergence ${settings.divergence}.`,
      `Use reverse_kl, or one of ${DIVERGENCE_LOSSES.join(", ")}.`,
      { losses, divergence: settings.divergence },
    )
  if (losses.includes("exo_pair") && settings.labelSmoothing === 0)
    throw settingsError("dpo", "exo_pair needs labelSmoothing above 0.", "Set it, for example to 0.001.")
  if (settings.reference === "row" && settings.ldAlpha !== 1)
    throw settingsError(
      "dpo",
      "ldAlpha needs the reference's log-prob of every token, and rows bring only sums.",
      'Leave ldAlpha at 1, or use reference "base".',
    )
  return { ...settings, losses, weights, wpo: false }
}

const sizeOf = (unit: PairUnit): number => packCounts(1, unit.completions[0]!.length)

/** Direct preference optimisation with the losses of its family. Source: Rafailov et al. 2023; TRL 1.13, `DPOTrainer`. */
export const dpo = rowObjective<PreferenceExample, PairUnit>()({
  name: "dpo",
  config: DpoSettingsSchema,
  open: openPreferences,
  prepare: (rows, { settings }) => {
    if ((settings as DpoSettings).reference === "row")
      for (const { row, reference } of rows) if (reference === undefined) throw missingReference(row)
    return rows.map(pairUnit)
  },
  loss: (given): LogprobLoss<PairUnit> => {
    const { reference } = given as DpoSettings
    const settings = dpoMathSettings(given as DpoSettings)
    const sorts = settings.losses.some((name) => SORTING_LOSSES.includes(name))
    const pairsOf = (batch: LogprobBatch<PairUnit>): PairLogprobs[] => {
      const [chosen, rejected] = [completionLogprobs(batch, 0), completionLogprobs(batch, 1)]
      return batch.units.map(({ referenceSums }, u) =>
        reference === "base"
          ? { chosen: chosen[u]!, rejected: rejected[u]! }
          : {
              chosen: { ...chosen[u]!, reference: referenceSums!.chosen },
              rejected: { ...rejected[u]!, reference: referenceSums!.rejected },
            },
      )
    }
    return {
      kind: "logprobs",
      reference: reference === "base",
      ...syncedReference(
        "dpo",
        given as DpoSettings,
        reference === "row" ? "the reference's log-probs come from the rows" : undefined,
      ),
      size: sizeOf,
      ...(sorts
        ? {
            gather: (batch: LogprobBatch<PairUnit>) => pairsOf(batch).map((pair) => pairSums(pair, settings.ldAlpha)),
          }
        : {}),
      compute: (batch) => {
        const { loss, gradients, metrics } = dpoLoss(
          pairsOf(batch),
          settings,
          unpackCounts(batch.normaliser),
          sorts ? { sums: batch.gathered as readonly PairSums[], indices: batch.indices } : undefined,
        )
        const dlogp = new Float64Array(batch.logprobs.length)
        for (const [u, { completions }] of batch.units.entries()) {
          putGradient(dlogp, batch.starts[u]!, completions[0]!, gradients[u]!.chosen)
          putGradient(dlogp, batch.starts[u]!, completions[1]!, gradients[u]!.rejected)
        }
        return { loss, dlogp, metrics }
      },
    }
  },
})
