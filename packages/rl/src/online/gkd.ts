import * as Schema from "effect/Schema"
import { field, SlothError, withDefault, type ConfigSchema } from "@sloth/core"
import type { Example } from "@sloth/data"
import { requestSeed } from "@sloth/infer"
import {
  evaluateUnits,
  unitFromExample,
  unitFromTokens,
  type Collected,
  type DivergenceLoss,
  type OnlineObjective,
  type SourceContext,
  type TrainingUnit,
  type UnitSource,
} from "@sloth/train"
import type { PromptExample } from "../data/prompts.ts"
import { mean } from "../internal/math.ts"
import { settingsError } from "../internal/settings.ts"
import { cacheTokens, forecastUnits, rehearseRollout } from "./forecast.ts"
import { GroupSampler, type Sampled } from "./group-sampler.ts"
import { rolloutFields } from "./grpo-settings.ts"
import { finite, lengths } from "./rollout-figures.ts"

// Streams of seeds: which rows the model answers itself, apart from what it says and what the teacher says.
const CHOICE = 0x474b4443
const SAMPLE = 0x474b4453
const TAUGHT = 0x474b4454

const { temperature: _temperature, maxCompletionLength: _length, ...common } = rolloutFields({ numGenerations: 1 })

/** Settings of on-policy distillation. */
export const GkdSettingsSchema = Schema.Struct({
  teacher: field
    .text({
      description:
        "Model to learn from, with the tokenizer of the model that is trained: hub id, folder, .gguf file or run.",
      aka: ["teacher_model_name_or_path"],
    })
    .pipe(Schema.optionalKey),
  lambda: field
    .number({
      description:
        "Share of the rows that the model answers itself, before it is compared with the teacher there; 0 learns from the answers of the rows, or of the teacher, alone.",
      min: 0,
      max: 1,
      aka: ["lmbda"],
    })
    .pipe(withDefault(0.5)),
  seqKd: field
    .boolean({
      description: "The teacher answers the rows that the model does not: what they answer themselves is not learnt.",
      aka: ["seq_kd"],
    })
    .pipe(withDefault(false)),
  beta: field
    .number({
      description:
        "How distributions are compared: 0 is KL(teacher || model), 1 is KL(model || teacher), between them the generalised Jensen-Shannon divergence.",
      min: 0,
      max: 1,
    })
    .pipe(withDefault(0.5)),
  lossTemperature: field
    .number({ description: "Temperature that both distributions are compared at.", above: 0, max: 100 })
    .pipe(withDefault(1)),
  maxCompletionLength: field
    .int({ description: "Most tokens of a completion.", unit: "tokens", min: 1, aka: ["max_new_tokens"] })
    .pipe(withDefault(128)),
  temperature: field.number({ description: "Temperature of sampling.", above: 0, max: 100 }).pipe(withDefault(0.9)),
  topP: common.topP,
  topK: common.topK,
  minP: common.minP,
  repetitionPenalty: common.repetitionPenalty,
  stop: common.stop,
  rolloutBatch: common.rolloutBatch,
  kvCache: common.kvCache,
})

/** Decoded {@link GkdSettingsSchema}. */
export type GkdSettings = typeof GkdSettingsSchema.Type

/** The tokens that the last scored stretch of a row answers. */
export const promptOf = ({ tokens, mask }: Example): Int32Array => {
  let start = mask.lastIndexOf(1)
  while (start > 1 && mask[start - 1] === 1) start--
  return tokens.subarray(0, Math.max(1, start))
}

/** Rows of data as units, some of them answered by the model as it is, the others by themselves or by the teacher. */
class DistillationSource implements UnitSource {
  readonly #rows: readonly Example[]
  readonly #heldOut: readonly TrainingUnit[]
  readonly #context: SourceContext
  readonly #settings: GkdSettings
  readonly #sampler: GroupSampler
  /** Samples from the teacher, where it answers. */
  readonly #taught: GroupSampler | undefined

  constructor(
    rows: readonly Example[],
    heldOut: readonly Example[],
    context: SourceContext,
    settings: GkdSettings,
    [sampler, taught]: readonly [GroupSampler, GroupSampler | undefined],
  ) {
    this.#rows = rows
    this.#heldOut = heldOut.flatMap((example) => unitFromExample(example) ?? [])
    this.#context = context
    this.#settings = settings
    this.#sampler = sampler
    this.#taught = taught
  }

  async collect(step: number, rowsOf: (step: number) => Int32Array): Promise<Collected> {
    const { config } = this.#context
    const chosen = Array.from(rowsOf(step), (row) => this.#rows[row]!)
    const draws = requestSeed(config.seed, CHOICE, step)
    const own = chosen.map((_, i) => requestSeed(draws, i, 0) / 2 ** 53 < this.#settings.lambda)
    const started = performance.now()
    const sampled = await this.#answers(
      this.#sampler,
      "model",
      SAMPLE,
      step,
      own.map((is, i) => (is ? chosen[i] : undefined)),
    )
    const taught =
      this.#taught === undefined
        ? []
        : await this.#answers(
            this.#taught,
            "teacher",
            TAUGHT,
            step,
            own.map((is, i) => (is ? undefined : chosen[i])),
          )
    const seconds = (performance.now() - started) / 1000
    const units = chosen.flatMap((example, i) => {
      const answer = sampled[i] ?? taught[i]
      if (answer === undefined) return unitFromExample(example) ?? []
      const { example: asked, completion } = answer
      const tokens = Int32Array.from([...asked.tokens, ...completion.tokens])
      return (
        unitFromTokens(
          tokens,
          (t) => t >= asked.tokens.length && completion.mask?.[t - asked.tokens.length] !== 0,
          example.row,
        ) ?? []
      )
    })
    const known = (some: readonly (Sampled | undefined)[]): Sampled[] => some.flatMap((answer) => answer ?? [])
    const [mine, theirs] = [known(sampled), known(taught)]
    const all = [...mine, ...theirs]
    const made = all.reduce((n, { completion }) => n + completion.tokens.length, 0)
    return {
      units,
      metrics: finite({
        "rows/sampled": mine.length / chosen.length,
        ...(this.#taught === undefined ? {} : { "rows/taught": theirs.length / chosen.length }),
        ...lengths(mine),
        ...(mine.length === 0
          ? {}
          : {
              "completions/clipped_ratio": mean(
                mine.map(({ completion }) => (completion.finishReason === "length" ? 1 : 0)),
              ),
            }),
        ...(all.length === 0 ? {} : { "rollout/tokens_per_second": made / seconds, "seconds/rollout": seconds }),
      }),
    }
  }

  /** Answers to the rows that are given, each at its place. */
  async #answers(
    sampler: GroupSampler,
    by: "model" | "teacher",
    stream: number,
    step: number,
    rows: readonly (Example | undefined)[],
  ): Promise<(Sampled | undefined)[]> {
    const asked = rows.flatMap((example) => example ?? [])
    if (asked.length === 0) return []
    const seed = requestSeed(this.#context.config.seed, stream, step)
    const sampled = await sampler.sample(asked.map(questionOf), 1, seed, step)
    await this.#note(step, sampled, by)
    let next = 0
    return rows.map((example) => (example === undefined ? undefined : sampled[next++]))
  }

  trained(): void {
    this.#sampler.weightsChanged()
  }

  /** Nothing: what a step samples follows from the weights and the seed. */
  save(): ReadonlyMap<string, Uint8Array> {
    return new Map()
  }

  restore(): void {}

  async evaluate() {
    const { model, teacher, split, signal } = this.#context
    const { loss, scoredTokens, metrics } = await evaluateUnits(model, this.#heldOut, {
      tokenBudget: split.tokenBudget,
      loss: lossOf(this.#settings),
      ...(teacher === undefined ? {} : { teacher }),
      ...(signal === undefined ? {} : { signal }),
    })
    return { loss, scoredTokens, metrics }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#taught?.[Symbol.asyncDispose]()
    await this.#sampler[Symbol.asyncDispose]()
  }

  async #note(step: number, sampled: readonly Sampled[], by: "model" | "teacher"): Promise<void> {
    const { tokenizer } = this.#context
    const questions = sampled.map(({ example }) => tokenizer.decode([...example.tokens], { skipSpecialTokens: true }))
    this.#context.record(
      sampled.map(({ example, completion, text }, i) => ({
        step,
        row: example.row,
        index: 0,
        prompt: questions[i]!,
        completion: text,
        tokens: completion.tokens.length,
        finish: completion.finishReason,
        ...(this.#taught === undefined ? {} : { by }),
      })),
    )
    await this.#context.show({ step, prompt: questions[0]!, completion: sampled[0]!.text })
  }
}

const questionOf = (example: Example): PromptExample => ({
  tokens: Array.from(promptOf(example)),
  prompt: "",
  columns: {},
  row: example.row,
})

const lossOf = ({ beta, lossTemperature }: GkdSettings): DivergenceLoss => ({
  kind: "divergence",
  beta,
  temperature: lossTemperature,
})

const refuseRewards = (rewards: readonly { readonly name: string }[]): void => {
  if (rewards.length === 0) return
  throw new SlothError("SLOTH_TRAIN_REWARDS", {
    what: 'The method "gkd" takes no rewards: the teacher is what it learns from.',
    next: "Leave them out, or choose a method such as grpo.",
    fields: { rewards: rewards.map(({ name }) => name) },
  })
}

/**
 * On-policy distillation: the model is compared with a teacher at every token of an answer, over the whole vocabulary; a share of the answers is its own, so that it learns where its own
 * words lead it. With `lambda` 0 it is plain distillation on the rows, with `seqKd` on what the teacher answers to them. Source: Agarwal et al. 2024 (GKD); TRL 1.13, `GKDTrainer`, which draws once a batch who answers.
 */
export const gkd: OnlineObjective<Example> & { readonly name: "gkd"; readonly config: typeof GkdSettingsSchema } = {
  name: "gkd",
  config: GkdSettingsSchema satisfies ConfigSchema,
  // As large as rows and their own answers can become.
  prepare: (rows, { settings }) => {
    const { lambda, seqKd, maxCompletionLength } = settings as GkdSettings
    const largest = forecastUnits(maxCompletionLength)
    return rows.flatMap((example) => {
      const unit = unitFromExample(example)
      if (unit === undefined) return []
      const own = largest(promptOf(example).length, 1)
      if (lambda === 1 || seqKd) return own
      return lambda > 0 && own.tokens.length > unit.tokens.length ? own : unit
    })
  },
  loss: (settings) => lossOf(settings as GkdSettings),
  online: {
    reuse: () => ({ slices: 1, times: 1 }),
    check: (settings, rewards) => {
      refuseRewards(rewards)
      const { lambda, seqKd } = settings as GkdSettings
      if (seqKd && lambda === 1)
        throw settingsError(
          "gkd",
          "seqKd asks the teacher for the rows that the model does not answer, and with lambda 1 there are none.",
          "Lower lambda, or leave seqKd out.",
        )
    },
    open: async (rows, heldOut, context) => {
      const settings = context.settings as GkdSettings
      const usable = rows.filter((example) => unitFromExample(example) !== undefined)
      const sizes = usable.map((example) => promptOf(example).length)
      const method = { ...settings, numGenerations: 1, onRewardError: "stop", rewardTimeout: 60 } as const
      const sampler = await GroupSampler.open(method, sizes, context)
      const { teacher, tokenizer, signal } = context
      // The teacher is here, wherever the model is sampled.
      const taught =
        settings.seqKd && teacher !== undefined
          ? await GroupSampler.open(method, sizes, {
              model: teacher,
              tokenizer,
              rollout: undefined,
              rewards: [],
              signal,
            })
          : undefined
      return new DistillationSource(usable, heldOut, context, settings, [sampler, taught])
    },
    rehearse: (model, forecast, config, given, teacher) => {
      const { lambda, seqKd, maxCompletionLength, rolloutBatch, kvCache } = given as GkdSettings
      const atOnce = Math.min(rolloutBatch, config.batch)
      // The longest prompt is no longer than the longest unit.
      const prompts = forecast.map(({ tokens }) => tokens.length)
      const asked = [...(lambda > 0 ? [model] : []), ...(seqKd && teacher !== undefined ? [teacher] : [])]
      for (const who of asked)
        rehearseRollout(who, {
          kvCache,
          atOnce,
          promptTokens: prompts.reduce((n, length) => Math.max(n, length), 0),
          cacheTokens: cacheTokens(prompts, {
            completions: 1,
            maxCompletion: maxCompletionLength,
            atOnce,
            context: who.config.maxPositions,
          }),
        })
    },
  },
}
