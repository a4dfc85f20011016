import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { syncedReference, syncedReferenceFields } from "../internal/reference.ts"
import { groupObjective } from "./group-objective.ts"
import {
  judgedPairs,
  pairFields,
  pairLoss,
  pairLossField,
  pairObjectiveLoss,
  pairSigns,
  tiesField,
  type PairSettings,
} from "./pairs.ts"

/** Settings of online DPO. */
export const OnlineDpoSettingsSchema = Schema.Struct({
  ...pairFields,
  loss: pairLossField,
  ties: tiesField,
  ...syncedReferenceFields,
})

/** Decoded {@link OnlineDpoSettingsSchema}. */
export type OnlineDpoSettings = typeof OnlineDpoSettingsSchema.Type

/** Settings of XPO. */
export const XpoSettingsSchema = Schema.Struct({
  ...pairFields,
  loss: pairLossField,
  ties: tiesField,
  alpha: field
    .number({
      description: "Weight of the log-prob of what the reference says, which the policy is pushed away from.",
      min: 0,
    })
    .pipe(withDefault(1e-5)),
})

/** Decoded {@link XpoSettingsSchema}. */
export type XpoSettings = typeof XpoSettingsSchema.Type

/** A judge's tie is its word; equal rewards are taken as the settings say. */
const judged = (settings: PairSettings & { readonly ties: "first" | "skip" }) =>
  judgedPairs(settings, (scores, isJudged) => ({ advantages: pairSigns(scores, isJudged || settings.ties === "skip") }))

/**
 * Online DPO (Guo et al. 2024) with TRL's settings: two completions of each prompt, the better one by reward against the other. The log-probs that are compared are the models' own: the temperature
 * is that of sampling alone.
 */
export const onlineDpo = groupObjective<"online_dpo", typeof OnlineDpoSettingsSchema, OnlineDpoSettings>({
  name: "online_dpo",
  config: OnlineDpoSettingsSchema,
  pairs: true,
  loss: (settings) => ({
    ...pairObjectiveLoss((sampled, pairs) => pairLoss(sampled, settings, pairs)),
    ...syncedReference("online_dpo", settings, undefined),
  }),
  method: (settings) => ({ dynamicSampling: 0, needsKl: false, ...judged(settings) }),
})

/** XPO (Xie et al. 2024) with TRL's settings: a completion of the policy against one of the reference, and a bonus for leaving what the reference says. */
export const xpo = groupObjective<"xpo", typeof XpoSettingsSchema, XpoSettings>({
  name: "xpo",
  config: XpoSettingsSchema,
  pairs: true,
  loss: (settings) => pairObjectiveLoss((sampled, pairs) => pairLoss(sampled, settings, pairs)),
  method: (settings) => ({ dynamicSampling: 0, needsKl: false, opponent: "reference", ...judged(settings) }),
})
