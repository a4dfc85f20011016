import { syncedReference } from "../internal/reference.ts"
import { settingsError } from "../internal/settings.ts"
import { groupAdvantages, reinforceAdvantages, rlooAdvantages, weightedRewards } from "./advantages.ts"
import { gkd } from "./gkd.ts"
import { groupObjective, rewardFigures } from "./group-objective.ts"
import {
  GRPO_DEFAULTS,
  grpoSettingsSchema,
  ReinforceSettingsSchema,
  RlooSettingsSchema,
  type GrpoDefaults,
  type GrpoSettings,
  type ReinforceMethodSettings,
  type RlooMethodSettings,
} from "./grpo-settings.ts"
import { nashMd } from "./nash-md.ts"
import { onlineDpo, xpo } from "./online-dpo.ts"
import { policyObjectiveLoss, rlooObjectiveLoss } from "./policy-objective.ts"
import { ppo } from "./ppo.ts"

/** Refuses sampling ahead where its completions would not be corrected for, or could not be old enough. Errors: SLOTH_RL_SETTINGS. */
const checkStaleness = (name: string, settings: GrpoSettings): void => {
  const { maxStaleness, correction, temperature, dynamicSampling, stepsPerGeneration, numIterations } = settings
  if (maxStaleness === 0) return
  const refuse = (what: string, next: string): never => {
    throw settingsError(name, `maxStaleness is ${maxStaleness} and ${what}.`, next)
  }
  const steps = stepsPerGeneration * numIterations
  if (maxStaleness < steps)
    refuse(
      `a rollout feeds ${steps} optimizer steps`,
      `A rollout made one ahead is ${steps} steps old when it is trained on: allow ${steps} or more, or 0.`,
    )
  if (correction === "none")
    refuse(
      'correction is "none"',
      "Older weights sample off the policy: leave correction at auto, or maxStaleness at 0.",
    )
  if (temperature !== 1)
    refuse(
      `temperature is ${temperature}`,
      "Sampling log-probs, which correct for older weights, are those before the temperature: leave temperature at 1, or maxStaleness at 0.",
    )
  if (dynamicSampling > 0)
    refuse(
      `dynamicSampling is ${dynamicSampling}`,
      "Replacements are chosen after scoring, when training has the machine: set one of them to 0.",
    )
}

const policy = <const Name extends string>(name: Name, defaults: GrpoDefaults) =>
  groupObjective<Name, ReturnType<typeof grpoSettingsSchema>, GrpoSettings>({
    name,
    config: grpoSettingsSchema(defaults),
    check: (settings) => checkStaleness(name, settings),
    // Another program rounds otherwise, so that its probabilities are not quite those that training computes.
    elsewhere: (settings) =>
      settings.correction === "auto" && settings.temperature === 1 && settings.maxStaleness === 0
        ? { ...settings, correction: "sequence_mask" }
        : settings,
    loss: (settings) => {
      const { correction, temperature, numGenerations } = settings
      if (numGenerations < 2)
        throw settingsError(
          name,
          `numGenerations is ${numGenerations}.`,
          "Give at least 2: rewards are compared within a group.",
        )
      if (correction !== "auto" && correction !== "none" && temperature !== 1)
        throw settingsError(
          name,
          `correction is "${correction}" and temperature is ${temperature}.`,
          "Sampling log-probs are those before the temperature: leave correction at none, or temperature at 1.",
        )
      if (settings.adaptiveEntropy) {
        const { entropyCoef: coef, entropyCoefMin: low, entropyCoefMax: high } = settings
        if (low > high || coef < low || coef > high)
          throw settingsError(
            name,
            `entropyCoef is ${coef}, and adaptiveEntropy holds it between ${low} and ${high}.`,
            "Give entropyCoefMin <= entropyCoef <= entropyCoefMax.",
          )
      }
      // A rounded cache samples from a slightly different policy, as another engine does; the log-probs that it sampled with are before the temperature.
      const rounded = settings.kvCache !== "f32" && temperature === 1
      const stale = settings.importance === "token" ? "token_truncate" : "sequence_truncate"
      const automatic = settings.maxStaleness > 0 ? stale : rounded ? "sequence_mask" : undefined
      const mode = correction === "auto" ? automatic : correction === "none" ? undefined : correction
      const clipHigh = settings.clipHigh ?? defaults.clipHigh ?? settings.clip
      const loss = policyObjectiveLoss({
        loss: settings.loss,
        importance: settings.importance,
        epsilon: settings.clip,
        epsilonHigh: clipHigh,
        ...(settings.delta === undefined ? {} : { delta: settings.delta }),
        beta: settings.beta,
        klEstimator: settings.klEstimator,
        klCorrection: settings.klCorrection,
        sapoTemperaturePositive: settings.sapoTemperaturePositive,
        sapoTemperatureNegative: settings.sapoTemperatureNegative,
        vespo: {
          kPositive: settings.vespoKPositive,
          lambdaPositive: settings.vespoLambdaPositive,
          kNegative: settings.vespoKNegative,
          lambdaNegative: settings.vespoLambdaNegative,
        },
        topEntropy: settings.topEntropy,
        entropyCoef: settings.entropyCoef,
        ...(settings.adaptiveEntropy
          ? {
              adaptiveEntropy: {
                target: settings.entropyTarget,
                delta: settings.entropyCoefDelta,
                min: settings.entropyCoefMin,
                max: settings.entropyCoefMax,
              },
            }
          : {}),
        ...(settings.offPolicyThreshold === undefined ? {} : { offPolicyThreshold: settings.offPolicyThreshold }),
        ...(mode === undefined
          ? {}
          : {
              correction: {
                mode,
                max: settings.correctionMax,
                ...(settings.correctionMin === undefined ? {} : { min: settings.correctionMin }),
              },
            }),
        maxCompletionLength: settings.maxCompletionLength,
        temperature,
      })
      return { ...loss, ...syncedReference(name, settings, settings.beta === 0 ? "beta is 0" : undefined) }
    },
    method: ({ dynamicSampling, scaleRewards, aggregation }) => ({
      dynamicSampling,
      needsKl: false,
      advantages: (scores, weights, groupSizes) => {
        const result = groupAdvantages(scores, groupSizes, { scale: scaleRewards, aggregation, weights })
        return { ...result, advantages: Array.from(result.advantages) }
      },
    }),
  })

/** GRPO (Shao et al. 2024) with TRL's settings and defaults: the loss is dapo unless told otherwise. */
export const grpo = policy("grpo", GRPO_DEFAULTS)

/** GSPO (Zheng et al. 2025): GRPO with the ratio of whole completions, clipped as in the paper. */
export const gspo = policy("gspo", {
  ...GRPO_DEFAULTS,
  loss: "grpo",
  importance: "sequence",
  clip: 3e-4,
  clipHigh: 4e-4,
})

/** Dr. GRPO (Liu et al. 2025): no division by lengths or by deviations of rewards. */
export const drGrpo = policy("dr_grpo", { ...GRPO_DEFAULTS, loss: "dr_grpo", scaleRewards: "none" })

/** DAPO (Yu et al. 2025): token means over the step, a higher upper clip, and other prompts in place of groups that teach nothing. */
export const dapo = policy("dapo", { ...GRPO_DEFAULTS, loss: "dapo", clipHigh: 0.28, dynamicSampling: 3 })

/** CISPO (MiniMax 2025): the ratio weighs the log-prob and is bounded from above only. */
export const cispo = policy("cispo", { ...GRPO_DEFAULTS, loss: "cispo", clipHigh: 5 })

/** RLOO (Ahmadian et al. 2024) with TRL's settings and defaults: completions against the mean of their siblings. */
export const rloo = groupObjective<"rloo", typeof RlooSettingsSchema, RlooMethodSettings>({
  name: "rloo",
  config: RlooSettingsSchema,
  loss: (settings) => {
    const { clip, clipHigh, temperature, numGenerations, beta } = settings
    if (numGenerations < 2)
      throw settingsError(
        "rloo",
        `numGenerations is ${numGenerations}.`,
        "Give at least 2: one is compared with the others.",
      )
    return {
      ...rlooObjectiveLoss({ epsilon: clip, epsilonHigh: clipHigh ?? clip, temperature }),
      ...syncedReference("rloo", settings, beta === 0 ? "beta is 0" : undefined),
    }
  },
  method: ({ beta, normalizeAdvantages, rewardClip }) => {
    if (rewardClip !== undefined && (rewardClip.length !== 2 || rewardClip[0]! >= rewardClip[1]!))
      throw settingsError(
        "rloo",
        `rewardClip is ${JSON.stringify(rewardClip)}.`,
        "Give the lowest and the highest reward.",
      )
    return {
      dynamicSampling: 0,
      needsKl: beta !== 0,
      advantages: (scores, weights, groupSizes, _lengths, kl) => {
        const figures = rewardFigures(scores, weights, groupSizes)
        const advantages = rlooAdvantages(
          weightedRewards(scores, weights),
          groupSizes,
          {
            beta,
            normalize: normalizeAdvantages,
            ...(rewardClip === undefined ? {} : { clip: [rewardClip[0]!, rewardClip[1]!] as const }),
          },
          kl === undefined ? undefined : Float64Array.from(kl, (values) => values.reduce((a, b) => a + b, 0)),
        )
        return { ...figures, advantages: Array.from(advantages) }
      },
    }
  },
})

/** REINFORCE++ (Hu 2025): discounted rewards of every token, whitened over the rollout, under PPO's clipped loss as a mean over tokens. */
export const reinforcePlusPlus = groupObjective<"reinforce++", typeof ReinforceSettingsSchema, ReinforceMethodSettings>(
  {
    name: "reinforce++",
    config: ReinforceSettingsSchema,
    loss: (settings) => ({
      ...policyObjectiveLoss({
        loss: "bnpo",
        epsilon: settings.clip,
        epsilonHigh: settings.clipHigh ?? settings.clip,
        maxCompletionLength: settings.maxCompletionLength,
        temperature: settings.temperature,
      }),
      ...syncedReference("reinforce++", settings, settings.klCoef === 0 ? "klCoef is 0" : undefined),
    }),
    method: ({ klCoef, gamma, baseline }) => ({
      dynamicSampling: 0,
      needsKl: klCoef !== 0,
      advantages: (scores, weights, groupSizes, lengths, kl) => ({
        ...rewardFigures(scores, weights, groupSizes),
        advantages: reinforceAdvantages(
          weightedRewards(scores, weights),
          groupSizes,
          lengths,
          { gamma, klCoef, baseline },
          kl,
        ),
      }),
    }),
  },
)

/** The methods that learn from rewards of sampled completions. */
export const onlineObjectives = [
  grpo,
  gspo,
  drGrpo,
  dapo,
  cispo,
  rloo,
  reinforcePlusPlus,
  ppo,
  gkd,
  onlineDpo,
  xpo,
  nashMd,
] as const
