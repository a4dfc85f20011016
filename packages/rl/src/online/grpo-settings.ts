import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { syncedReferenceFields } from "../internal/reference.ts"
import { IMPORTANCE_LEVELS } from "./importance.ts"
import { POLICY_LOSSES, type PolicyLoss } from "./policy-loss.ts"
import type { ImportanceLevel } from "./importance.ts"

/** Settings of methods that sample completions during training, whatever they make of them. */
export const rolloutFields = (defaults: { readonly numGenerations: number }) => ({
  numGenerations: field
    .int({ description: "Completions sampled for each prompt.", min: 1, aka: ["num_generations"] })
    .pipe(withDefault(defaults.numGenerations)),
  maxCompletionLength: field
    .int({
      description: "Most tokens of a completion.",
      unit: "tokens",
      min: 1,
      aka: ["max_completion_length", "max_new_tokens", "response_length"],
    })
    .pipe(withDefault(512)),
  temperature: field
    .number({
      description: "Temperature of sampling; log-probs are those of this distribution.",
      above: 0,
      max: 100,
    })
    .pipe(withDefault(1)),
  topP: field
    .number({
      description: "Sample from the likeliest tokens up to this share; 1 takes all.",
      above: 0,
      max: 1,
      aka: ["top_p"],
    })
    .pipe(withDefault(1)),
  topK: field
    .int({ description: "Sample from this many likeliest tokens; 0 takes all.", min: 0, aka: ["top_k"] })
    .pipe(withDefault(0)),
  minP: field
    .number({
      description: "Leave out tokens less likely than this share of the likeliest.",
      min: 0,
      max: 1,
      aka: ["min_p"],
    })
    .pipe(withDefault(0)),
  repetitionPenalty: field
    .number({
      description: "Divides the logits of tokens that were there already; 1 does nothing.",
      min: 0.01,
      max: 100,
      aka: ["repetition_penalty"],
    })
    .pipe(withDefault(1)),
  stop: field.list(Schema.String, { description: "Texts that end a completion." }).pipe(withDefault([])),
  numIterations: field
    .int({ description: "How often the completions of a rollout are trained on.", min: 1, aka: ["num_iterations"] })
    .pipe(withDefault(1)),
  stepsPerGeneration: field
    .int({
      description: "Optimizer steps that a rollout is cut into; each takes batch prompts.",
      min: 1,
      aka: ["steps_per_generation"],
    })
    .pipe(withDefault(1)),
  rolloutBatch: field
    .int({
      description: "Most completions that grow at the same time; fewer take less memory.",
      min: 1,
    })
    .pipe(withDefault(64)),
  kvCache: field
    .choice(["f32", "f16", "q8_0"], {
      description:
        "How rollouts keep keys and values. f16 and q8_0 take a half and a quarter of the memory; what they sample is a little off the policy.",
    })
    .pipe(withDefault("f32")),
  rewardWeights: field
    .list(Schema.Finite, {
      description: "Weight of each reward, in order; their own when absent.",
      aka: ["reward_weights"],
    })
    .pipe(Schema.optionalKey),
  onRewardError: field
    .choice(["stop", "null"], {
      description: "What a reward that fails does: end the run (saved), or leave its completions without a score.",
    })
    .pipe(withDefault("stop")),
  rewardTimeout: field
    .number({ description: "Longest time for a reward to score a rollout.", unit: "seconds", above: 0 })
    .pipe(withDefault(60)),
  maskTruncated: field
    .boolean({
      description: "Learn nothing from completions that were cut at maxCompletionLength.",
      aka: ["mask_truncated_completions"],
    })
    .pipe(withDefault(false)),
})

/** Where the methods of the family differ from each other. */
export interface GrpoDefaults {
  readonly loss: PolicyLoss
  readonly importance: ImportanceLevel
  readonly clip: number
  readonly clipHigh?: number
  readonly scaleRewards: "group" | "batch" | "none"
  readonly dynamicSampling: number
}

/** TRL's defaults. */
export const GRPO_DEFAULTS: GrpoDefaults = {
  loss: "dapo",
  importance: "token",
  clip: 0.2,
  scaleRewards: "group",
  dynamicSampling: 0,
}

/** Settings of GRPO and its relatives. */
export const grpoSettingsSchema = (defaults: GrpoDefaults) =>
  Schema.Struct({
    ...rolloutFields({ numGenerations: 8 }),
    loss: field
      .choice(POLICY_LOSSES, { description: "How tokens become a loss.", aka: ["loss_type"] })
      .pipe(withDefault(defaults.loss)),
    importance: field
      .choice(IMPORTANCE_LEVELS, {
        description: "Where the ratio to the sampling policy is formed: each token, or the whole completion (GSPO).",
        aka: ["importance_sampling_level"],
      })
      .pipe(withDefault(defaults.importance)),
    clip: field
      .number({ description: "The ratio counts down to 1 - clip.", min: 0, aka: ["epsilon_low", "cliprange"] })
      .pipe(withDefault(defaults.clip)),
    clipHigh: field
      .number({
        description: `The ratio counts up to 1 + clipHigh (with cispo up to clipHigh itself); ${defaults.clipHigh ?? "clip"} when absent.`,
        min: 0,
        aka: ["epsilon_high"],
      })
      .pipe(Schema.optionalKey),
    delta: field
      .number({ description: "Largest ratio that counts at all (two-sided clipping).", above: 0 })
      .pipe(Schema.optionalKey),
    beta: field
      .number({
        description:
          "Weight of the KL divergence from the reference, which is the model without its adapter; 0 needs no reference.",
        min: 0,
      })
      .pipe(withDefault(0)),
    ...syncedReferenceFields,
    klEstimator: field
      .choice(["k1", "k2", "k3"], { description: "How the KL divergence is estimated." })
      .pipe(withDefault("k3")),
    klCorrection: field
      .boolean({
        description: "Weigh the KL estimate by the ratio, which makes its gradient unbiased off policy.",
        aka: ["use_bias_correction_kl"],
      })
      .pipe(withDefault(true)),
    sapoTemperaturePositive: field
      .number({ description: "sapo: temperature for advantages above 0.", above: 0, aka: ["sapo_temperature_pos"] })
      .pipe(withDefault(1)),
    sapoTemperatureNegative: field
      .number({ description: "sapo: temperature for other advantages.", above: 0, aka: ["sapo_temperature_neg"] })
      .pipe(withDefault(1.05)),
    vespoKPositive: field
      .number({ description: "vespo: k for advantages from 0.", aka: ["vespo_k_pos"] })
      .pipe(withDefault(2)),
    vespoLambdaPositive: field
      .number({ description: "vespo: lambda for advantages from 0.", aka: ["vespo_lambda_pos"] })
      .pipe(withDefault(3)),
    vespoKNegative: field
      .number({ description: "vespo: k for advantages below 0.", aka: ["vespo_k_neg"] })
      .pipe(withDefault(3)),
    vespoLambdaNegative: field
      .number({ description: "vespo: lambda for advantages below 0.", aka: ["vespo_lambda_neg"] })
      .pipe(withDefault(2)),
    topEntropy: field
      .number({
        description:
          "Learn only from this share of the tokens, those of the highest entropy. Below 1 a step must fit into one micro-batch.",
        above: 0,
        max: 1,
        aka: ["top_entropy_quantile"],
      })
      .pipe(withDefault(1)),
    entropyCoef: field
      .number({
        description:
          "Weight of the entropy bonus, which keeps completions varied; below 0 it sharpens them. With adaptiveEntropy it is where the weight begins.",
        aka: ["entropy_coef"],
      })
      .pipe(withDefault(0)),
    adaptiveEntropy: field
      .boolean({
        description:
          "Steer the weight of the entropy bonus: it acts while the entropy is at or below entropyTarget, growing by entropyCoefDelta a step, and shrinks above.",
        aka: ["use_adaptive_entropy"],
      })
      .pipe(withDefault(false)),
    entropyTarget: field
      .number({
        description: "adaptiveEntropy: the entropy to stay above.",
        unit: "nats a token",
        min: 0,
        aka: ["entropy_target"],
      })
      .pipe(withDefault(0.2)),
    entropyCoefDelta: field
      .number({
        description: "adaptiveEntropy: what the weight changes by after a step.",
        above: 0,
        aka: ["entropy_coef_delta"],
      })
      .pipe(withDefault(0.005)),
    entropyCoefMin: field
      .number({ description: "adaptiveEntropy: smallest weight.", min: 0, aka: ["entropy_coef_min"] })
      .pipe(withDefault(0)),
    entropyCoefMax: field
      .number({ description: "adaptiveEntropy: largest weight.", min: 0, aka: ["entropy_coef_max"] })
      .pipe(withDefault(1)),
    offPolicyThreshold: field
      .number({
        description: "Leave out completions of negative advantage that have drifted further than this, nats a token.",
        aka: ["off_policy_mask_threshold"],
      })
      .pipe(Schema.optionalKey),
    correction: field
      .choice(["auto", "none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"], {
        description:
          "Weighs tokens or completions by the ratio to the log-probs of the engine that sampled. auto: token_truncate with maxStaleness (sequence_truncate where ratios are those of sequences), sequence_mask with a rounded kvCache or where another program samples, else none.",
        aka: ["vllm_importance_sampling_mode", "vllm_importance_sampling_correction"],
      })
      .pipe(withDefault("auto")),
    correctionMax: field
      .number({ description: "Largest ratio of the correction.", above: 0, aka: ["vllm_importance_sampling_clip_max"] })
      .pipe(withDefault(3)),
    correctionMin: field
      .number({ description: "Smallest ratio of the correction.", min: 0, aka: ["vllm_importance_sampling_clip_min"] })
      .pipe(Schema.optionalKey),
    scaleRewards: field
      .choice(["group", "batch", "none"], {
        description:
          "What deviations from the group's mean are divided by: the standard deviation of the group, of the batch, or nothing.",
        aka: ["scale_rewards"],
      })
      .pipe(withDefault(defaults.scaleRewards)),
    aggregation: field
      .choice(["sum_then_normalize", "normalize_then_sum"], {
        description: "Several rewards: normalise their sum, or each of them (GDPO).",
        aka: ["multi_objective_aggregation"],
      })
      .pipe(withDefault("sum_then_normalize")),
    maxStaleness: field
      .int({
        description:
          "Most optimizer steps by which the weights that sample may be behind those that begin to train on the completions. 0 samples when completions are needed; more samples ahead, so that rewards, and engines elsewhere, work while training goes on. Importance sampling corrects for it.",
        unit: "optimizer steps",
        min: 0,
        max: 64,
        aka: ["max_staleness"],
      })
      .pipe(withDefault(0)),
    replayBuffer: field
      .int({
        description:
          "Groups of earlier rollouts that are kept, those with the most to teach: they take the place of groups whose rewards are all equal. 0 keeps none.",
        min: 0,
        aka: ["replay_buffer_size"],
      })
      .pipe(withDefault(0)),
    dynamicSampling: field
      .int({
        description:
          "Further rounds of other prompts in place of groups whose rewards are all equal (DAPO); 0 keeps such groups.",
        min: 0,
        max: 100,
      })
      .pipe(withDefault(defaults.dynamicSampling)),
  })

/** Decoded settings of GRPO. */
export type GrpoSettings = ReturnType<typeof grpoSettingsSchema>["Type"]

/** Settings of RLOO. */
export const RlooSettingsSchema = Schema.Struct({
  ...rolloutFields({ numGenerations: 2 }),
  clip: field
    .number({ description: "The ratio of a completion counts down to 1 - clip.", min: 0, aka: ["epsilon_low"] })
    .pipe(withDefault(0.2)),
  clipHigh: field
    .number({ description: "The ratio counts up to 1 + clipHigh; clip when absent.", min: 0, aka: ["epsilon_high"] })
    .pipe(Schema.optionalKey),
  beta: field
    .number({
      description: "Weight of the KL divergence from the model without its adapter, taken off the reward.",
      min: 0,
    })
    .pipe(withDefault(0.05)),
  ...syncedReferenceFields,
  normalizeAdvantages: field
    .boolean({ description: "Divide advantages by their standard deviation.", aka: ["normalize_advantages"] })
    .pipe(withDefault(false)),
  rewardClip: field
    .list(Schema.Finite, { description: "Lowest and highest reward that counts.", aka: ["reward_clip_range"] })
    .pipe(Schema.optionalKey),
})

/** Decoded settings of RLOO. */
export type RlooMethodSettings = typeof RlooSettingsSchema.Type

/** Settings of methods that reward each token: its ratio, its KL divergence, and the discount after it. */
export const tokenRewardFields = (
  klCoef: number,
  aka: { readonly clip?: readonly string[]; readonly klCoef?: readonly string[] } = {},
) => ({
  clip: field
    .number({ description: "The ratio of a token counts down to 1 - clip.", min: 0, aka: aka.clip })
    .pipe(withDefault(0.2)),
  clipHigh: field
    .number({ description: "The ratio counts up to 1 + clipHigh; clip when absent.", min: 0 })
    .pipe(Schema.optionalKey),
  klCoef: field
    .number({
      description: "Weight of each token's KL divergence from the model without its adapter, taken off its reward.",
      min: 0,
      aka: aka.klCoef,
    })
    .pipe(withDefault(klCoef)),
  gamma: field.number({ description: "Discount from token to token.", min: 0, max: 1 }).pipe(withDefault(1)),
})

/** Settings of REINFORCE++. */
export const ReinforceSettingsSchema = Schema.Struct({
  ...rolloutFields({ numGenerations: 8 }),
  ...tokenRewardFields(0.001),
  ...syncedReferenceFields,
  baseline: field
    .boolean({ description: "Take the mean reward of the prompt's completions off first (REINFORCE++-baseline)." })
    .pipe(withDefault(false)),
})

/** Decoded settings of REINFORCE++. */
export type ReinforceMethodSettings = typeof ReinforceSettingsSchema.Type
