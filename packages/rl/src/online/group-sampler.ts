import { SlothError, type Completion, type RewardSample, type RolloutEngine, type TokenPrompt } from "@sloth/core"
import { localRollout, MixtureRollout, requestSeed, type KnownPrefix } from "@sloth/infer"
import type { SourceContext } from "@sloth/train"
import type { PromptExample } from "../data/prompts.ts"
import { runRewards, type RewardRun } from "../rewards/run-rewards.ts"
import { cacheTokens } from "./forecast.ts"
import type { GroupMethod } from "./group-method.ts"

// A stream of seeds: the opponent must not repeat the policy's draws.
const OPPONENT = 0x4f50504f

/** What an engine may say of a completion beyond the contract. */
export interface RicherCompletion extends Completion {
  /** 0 for tokens that an environment wrote. */
  readonly mask?: Uint8Array
  /** More for its line in `samples.jsonl`; plain data. */
  readonly details?: Readonly<Record<string, unknown>>
}

/** A completion of a prompt, before it has an advantage. */
export interface Sampled {
  readonly example: PromptExample
  readonly completion: RicherCompletion
  readonly text: string
}

/** Who gets what has been computed of the first prompts of a rollout, by their number. */
export interface KeepPrompts {
  readonly keepPrompts: number
  keep(prompt: number, prefix: KnownPrefix): void
}

/** Engines that can do more than the contract asks for. */
interface RicherEngine extends RolloutEngine {
  generate(
    prompts: readonly TokenPrompt[],
    options: Parameters<RolloutEngine["generate"]>[1],
    control?: { readonly signal?: AbortSignal } & Partial<KeepPrompts>,
  ): ReturnType<RolloutEngine["generate"]>
  release?(): void
}

/** What sampling takes of a method. */
export type SamplingMethod = Pick<
  GroupMethod,
  | "numGenerations"
  | "maxCompletionLength"
  | "temperature"
  | "topP"
  | "topK"
  | "minP"
  | "repetitionPenalty"
  | "stop"
  | "rolloutBatch"
  | "kvCache"
  | "onRewardError"
  | "rewardTimeout"
  | "maxStaleness"
  | "opponent"
>

/** What sampling takes of its surroundings. */
export type SamplingContext = Pick<
  SourceContext,
  "model" | "tokenizer" | "rollout" | "rewards" | "signal" | "saveAdapter"
>

/** Samples completions of prompts with the method's engine and settings, and has rewards judge them. */
export class GroupSampler implements AsyncDisposable {
  readonly #method: SamplingMethod
  readonly #context: SamplingContext
  readonly #engine: RicherEngine
  readonly #opponent: RicherEngine | undefined

  private constructor(
    method: SamplingMethod,
    context: SamplingContext,
    engine: RolloutEngine,
    opponent: RolloutEngine | undefined,
  ) {
    this.#method = method
    this.#context = context
    this.#engine = engine
    this.#opponent = opponent
  }

  /** Opens the engine for prompts of `sizes` tokens. Errors: SLOTH_RL_OPPONENT; those of the engine. */
  static async open(method: SamplingMethod, sizes: readonly number[], context: SamplingContext): Promise<GroupSampler> {
    const { model, tokenizer } = context
    if (method.opponent !== undefined && context.rollout?.elsewhere === true)
      throw new SlothError("SLOTH_RL_OPPONENT", {
        what: `The method samples from the reference too, which the engine "${context.rollout.name}" does not have.`,
        next: "Leave rollout out, or take a method that samples from the policy alone, such as online_dpo.",
        fields: { engine: context.rollout.name },
      })
    const options = {
      tokenizer,
      ...(context.saveAdapter === undefined ? {} : { saveAdapter: context.saveAdapter }),
      maxBatch: method.rolloutBatch,
      kvCache: method.kvCache,
      cacheTokens: cacheTokens(sizes, {
        completions: method.numGenerations,
        maxCompletion: method.maxCompletionLength,
        atOnce: method.rolloutBatch,
        context: model.config.maxPositions,
      }),
    }
    const make = async (adapters: boolean): Promise<RolloutEngine> =>
      context.rollout === undefined
        ? localRollout.create(model, adapters ? options : { ...options, adapters })
        : await context.rollout.create(model as never, (adapters ? options : { ...options, adapters }) as never)
    const opponentOf = async (): Promise<RolloutEngine | undefined> => {
      if (method.opponent === undefined) return undefined
      return method.opponent === "reference"
        ? make(false)
        : new MixtureRollout(model, { ...options, mixture: method.opponent.mixture })
    }
    const engine = await make(true)
    return new GroupSampler(method, context, engine, await opponentOf())
  }

  /** True for an engine that samples while training goes on: it is elsewhere, and says when it has taken the weights. */
  get besideTraining(): boolean {
    return this.#context.rollout?.elsewhere === true && this.#engine.syncWeights !== undefined
  }

  /** Tells the engine of an update. */
  weightsChanged(): void {
    this.#engine.weightsChanged?.()
  }

  /** Hands an engine of {@link besideTraining} the weights as they are now. */
  async syncWeights(signal: AbortSignal): Promise<void> {
    this.#engine.weightsChanged?.()
    await this.#engine.syncWeights!(signal)
  }

  /** `count` completions for each prompt, in order of prompt and index. `step` is only named in errors: SLOTH_RL_ROLLOUT, those of the engine; an abort throws its reason. */
  async sample(
    examples: readonly PromptExample[],
    count: number,
    seed: number,
    step: number,
    signal = this.#context.signal,
    keep?: KeepPrompts,
  ): Promise<Sampled[]> {
    if (this.#opponent === undefined || count !== 2)
      return this.#from(this.#engine, examples, count, seed, step, signal, keep)
    const own = await this.#from(this.#engine, examples, 1, seed, step, signal)
    const other = await this.#from(this.#opponent, examples, 1, requestSeed(seed, OPPONENT, 0), step, signal)
    return own.flatMap((first, i) => [first, other[i]!])
  }

  async #from(
    engine: RicherEngine,
    examples: readonly PromptExample[],
    count: number,
    seed: number,
    step: number,
    signal: AbortSignal | undefined,
    keep?: KeepPrompts,
  ): Promise<Sampled[]> {
    const { tokenizer } = this.#context
    const { maxCompletionLength, temperature, topP, topK, minP, repetitionPenalty, stop } = this.#method
    const places: (Sampled | undefined)[] = Array.from({ length: examples.length * count })
    signal?.throwIfAborted()
    try {
      const stream = engine.generate(
        examples.map(({ tokens }) => ({ tokens, count })),
        { maxTokens: maxCompletionLength, temperature, topP, topK, minP, repetitionPenalty, stop, seed },
        { ...(signal === undefined ? {} : { signal }), ...keep },
      )
      for await (const completion of stream) {
        const example = examples[completion.prompt]!
        const text =
          "text" in completion
            ? String(completion.text)
            : textOf(tokenizer.decode([...completion.tokens], { skipSpecialTokens: true }), stop)
        places[completion.prompt * count + completion.index] = { example, completion, text }
        if (signal?.aborted === true) break
      }
    } finally {
      // Cache and training take turns in the same memory.
      engine.release?.()
    }
    signal?.throwIfAborted()
    const missing = places.findIndex((place) => place === undefined || place.completion.tokens.length === 0)
    if (missing >= 0)
      throw new SlothError("SLOTH_RL_ROLLOUT", {
        what: `The rollout of step ${step} lacks completion ${missing % count} of prompt ${Math.floor(missing / count)}, or it is empty.`,
        why: "The engine must give every completion it was asked for, with at least one token.",
        next: "Look at the engine's own messages.",
        fields: { step, prompt: Math.floor(missing / count), completion: missing % count },
      })
    return places as Sampled[]
  }

  /** Scores of completions. Errors: those of {@link runRewards}. */
  async judge(sampled: readonly Sampled[], signal = this.#context.signal): Promise<RewardRun> {
    const samples = sampled.map(({ example, completion, text }): RewardSample => ({
      prompt: example.prompt,
      completion: text,
      completionTokens: completion.tokens,
      finishReason: completion.finishReason,
      row: example.columns,
    }))
    return runRewards(this.#context.rewards, samples, {
      onError: this.#method.onRewardError === "stop" ? "throw" : "null",
      timeoutSeconds: this.#method.rewardTimeout,
      // Training goes on beside, and may hold the thread as well.
      patience: (this.#method.maxStaleness ?? 0) > 0 ? 10 : 1,
      ...(signal === undefined ? {} : { signal }),
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opponent?.[Symbol.asyncDispose]()
    await this.#engine[Symbol.asyncDispose]()
  }
}

/** A text up to the first of the texts that end it. */
const textOf = (text: string, stop: readonly string[]): string => {
  const ends = stop.map((end) => text.indexOf(end)).filter((at) => at >= 0)
  return ends.length === 0 ? text : text.slice(0, Math.min(...ends))
}
