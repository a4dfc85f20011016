import type { ConfigSchema } from "@sloth/core"
import { localRollout } from "@sloth/infer"
import type { CausalLM } from "@sloth/model"
import { FEW_ROWS } from "@sloth/tensor"
import type { LogprobLoss, OnlineObjective, Reuse, TrainConfig, TrainingUnit } from "@sloth/train"
import type { PreferenceData, PreferenceOptions } from "../data/open.ts"
import { openPrompts, type PromptExample } from "../data/prompts.ts"
import { groupAdvantages } from "./advantages.ts"
import { cacheTokens, forecastUnits, pieces, PREFILL_ROWS, rehearseRollout } from "./forecast.ts"
import { checkRewards, type GroupMethod } from "./group-method.ts"
import { GroupSource } from "./group-source.ts"
import { checkJudge, judgeOf, type JudgeSettings } from "./judge-settings.ts"
import type { SampledUnit } from "./sampled-unit.ts"

/** A method that samples completions of prompts during training and learns from their rewards. */
export interface GroupObjective<
  Name extends string = string,
  Config extends ConfigSchema = ConfigSchema,
> extends OnlineObjective<PromptExample> {
  readonly name: Name
  readonly config: Config
  /** Opens prompts, in files or given as objects. */
  open(
    source: string | readonly string[] | readonly object[],
    options: PreferenceOptions,
  ): Promise<PreferenceData<PromptExample>>
}

/** Settings that all these methods have. */
export type GroupSettings = Omit<
  GroupMethod,
  | "name"
  | "numGenerations"
  | "maskTruncated"
  | "dynamicSampling"
  | "reuse"
  | "needsKl"
  | "needsValues"
  | "together"
  | "opponent"
  | "advantages"
> & {
  /** Two where the method compares pairs. */
  readonly numGenerations?: number
  readonly maskTruncated?: boolean
  readonly numIterations: number
  readonly stepsPerGeneration: number
}

const reuseOf = ({ numIterations, stepsPerGeneration }: GroupSettings): Reuse => ({
  slices: stepsPerGeneration,
  times: numIterations,
})

/** Makes a method that samples groups of completions: settings, a loss, and how rewards become advantages. */
export const groupObjective = <
  const Name extends string,
  Config extends ConfigSchema,
  Settings extends GroupSettings,
>(spec: {
  readonly name: Name
  readonly config: Config
  /** True for methods that compare two completions of each prompt. */
  readonly pairs?: boolean
  loss(settings: Settings): LogprobLoss<SampledUnit>
  /** The settings for completions that another program samples. */
  elsewhere?(settings: Settings): Settings
  /** Refuses settings that make no sense together. */
  check?(settings: Settings): void
  method(
    settings: Settings,
  ): Pick<GroupMethod, "dynamicSampling" | "needsKl" | "needsValues" | "opponent" | "advantages">
}): GroupObjective<Name, Config> => {
  const countOf = ({ numGenerations = 2 }: Settings): number => numGenerations
  // Units of equal size are one object, also when pieces are cut from them.
  const units = new Map<number, ReturnType<typeof forecastUnits>>()
  const unitsOf = (maxCompletion: number) => {
    const known = units.get(maxCompletion)
    if (known !== undefined) return known
    const made = forecastUnits(maxCompletion)
    units.set(maxCompletion, made)
    return made
  }
  const cut = (unit: TrainingUnit, tokenBudget: number): readonly TrainingUnit[] => {
    // From the sizes of the unit back to what it was made of.
    const first = unit.segments[0]!.length
    const alone = unit.segments.length === 1
    if (alone || spec.pairs === true) return [unit]
    const count = unit.segments.length - 1
    const own = unit.segments[1]!.length
    return pieces(first, own, count, tokenBudget).map((n) => unitsOf(own + 1)(first, n))
  }
  /** Tokens of the prompts that forecast units were made of. */
  const promptSizes = (forecast: readonly TrainingUnit[], { maxCompletionLength }: Settings): number[] =>
    forecast.map(({ segments }) =>
      segments.length === 1 ? segments[0]!.length - (maxCompletionLength - 1) : segments[0]!.length,
    )
  const objective: OnlineObjective<PromptExample, SampledUnit> &
    Pick<GroupObjective<Name, Config>, "name" | "config" | "open"> = {
    name: spec.name,
    config: spec.config,
    open: openPrompts,
    // One unit a prompt, as large as its completions can become.
    prepare: (rows, { settings }) => {
      const { maxCompletionLength } = settings as Settings
      const unit = unitsOf(maxCompletionLength)
      return rows.map(({ tokens }) => unit(tokens.length, countOf(settings as Settings))) as unknown as SampledUnit[]
    },
    loss: (settings) => spec.loss(settings as Settings),
    online: {
      reuse: (settings) => reuseOf(settings as Settings),
      reference: (settings) => spec.method(settings as Settings).needsKl,
      settings: (settings, rollout) =>
        rollout?.elsewhere === true && spec.elsewhere !== undefined ? spec.elsewhere(settings as Settings) : settings,
      // What a failing reward does may change when a run goes on, so both count as their defaults.
      decisive: (settings) => ({ ...(settings as Settings), onRewardError: "stop", rewardTimeout: 60 }),
      check: (settings, rewards) => {
        const { rewardWeights } = settings as Settings
        const judge = spec.pairs === true ? checkJudge(spec.name, settings as JudgeSettings, rewards) : undefined
        const { missingEndPenalty } = settings as { readonly missingEndPenalty?: number }
        checkRewards(
          {
            name: spec.name,
            pairs: spec.pairs === true,
            ...(rewardWeights === undefined ? {} : { rewardWeights }),
            ...(missingEndPenalty === undefined ? {} : { missingEndPenalty }),
          },
          judge === undefined ? rewards : [judge],
        )
        spec.check?.(settings as Settings)
      },
      open: (rows, heldOut, context) => {
        const settings = context.settings as Settings
        const judge =
          spec.pairs === true ? judgeOf(spec.name, settings as JudgeSettings, context.config.seed) : undefined
        return GroupSource.open(
          {
            ...settings,
            name: spec.name,
            numGenerations: countOf(settings),
            maskTruncated: settings.maskTruncated ?? false,
            together: spec.pairs === true,
            reuse: reuseOf(settings),
            ...spec.method(settings),
          },
          rows,
          heldOut,
          judge === undefined ? context : { ...context, rewards: [judge] },
        )
      },
      splitForecast: cut,
      // One update a rollout, right after it and with the same products: what the prompts' passes have made is what the update would make.
      keeps: (forecast, config, given, rollout) => {
        const settings = given as Settings
        const { maxStaleness = 0, replayBuffer = 0, kvCache } = settings
        const { opponent } = spec.method(settings)
        const { slices, times } = reuseOf(settings)
        const same = slices * times === 1 && maxStaleness === 0 && replayBuffer === 0 && opponent === undefined
        const exact = config.dropout === 0 && config.precision === "f32" && kvCache === "f32"
        const fitting = promptSizes(forecast, settings).filter((n) => n > FEW_ROWS && n <= PREFILL_ROWS)
        if (!same || !exact || fitting.length === 0 || (rollout !== undefined && rollout !== localRollout))
          return undefined
        return { prompts: config.batch, rows: Math.max(...fitting) }
      },
      rehearse: (model: CausalLM, forecast, config: TrainConfig, settings, _teacher, kept) => {
        const { maxCompletionLength, rolloutBatch, stepsPerGeneration, kvCache } = settings as Settings
        const numGenerations = countOf(settings as Settings)
        const prompts = promptSizes(forecast, settings as Settings)
        const atOnce = Math.min(rolloutBatch, config.batch * stepsPerGeneration * numGenerations)
        const { opponent } = spec.method(settings as Settings)
        rehearseRollout(model, {
          kept,
          kvCache,
          twin: typeof opponent === "object",
          atOnce,
          promptTokens: prompts.reduce((n, length) => Math.max(n, length), 0),
          cacheTokens: cacheTokens(prompts, {
            completions: numGenerations,
            maxCompletion: maxCompletionLength,
            atOnce,
            context: model.config.maxPositions,
          }),
        })
      },
    },
  }
  return objective as unknown as GroupObjective<Name, Config>
}

/** Figures of rewards that do not depend on what advantages are made of them. */
export const rewardFigures = (
  scores: readonly (readonly (number | null)[])[],
  weights: readonly number[],
  groupSizes: readonly number[],
) => groupAdvantages(scores, groupSizes, { scale: "none", aggregation: "sum_then_normalize", weights })
