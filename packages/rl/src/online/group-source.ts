import {
  SlothError,
  type Completion,
  type Reward,
  type RewardSample,
  type RolloutEngine,
  type TokenPrompt,
} from "@sloth/core"
import { epochOrder } from "@sloth/data"
import { localRollout, requestSeed, type KvCacheFormat } from "@sloth/infer"
import {
  buildMicroBatch,
  readLogprobs,
  splitUnits,
  type Collected,
  type Reuse,
  type SourceContext,
  type UnitSource,
} from "@sloth/train"
import type { PromptExample } from "../data/prompts.ts"
import { mean } from "../internal/math.ts"
import { pick } from "../preference/completions-unit.ts"
import { runRewards, type RewardRun } from "../rewards/run-rewards.ts"
import { Adviser } from "./advice.ts"
import type { Advantages } from "./advantages.ts"
import { cacheTokens } from "./forecast.ts"
import { maskedCount } from "./importance.ts"
import { sampledUnits, type SampledCompletion, type SampledUnit } from "./sampled-unit.ts"
import { readRollout, writeRollout, type SampledGroup, type StoredRollout } from "./stored-rollout.ts"

/** What the source has to know of its method. */
export interface GroupMethod {
  readonly name: string
  readonly numGenerations: number
  readonly maxCompletionLength: number
  readonly temperature: number
  readonly topP: number
  readonly topK: number
  readonly minP: number
  readonly repetitionPenalty: number
  readonly stop: readonly string[]
  readonly rolloutBatch: number
  readonly kvCache: KvCacheFormat
  readonly rewardWeights?: readonly number[]
  readonly onRewardError: "stop" | "null"
  readonly rewardTimeout: number
  readonly maskTruncated: boolean
  /** Rounds of other prompts in place of groups that teach nothing. */
  readonly dynamicSampling: number
  readonly reuse: Reuse
  /** True where advantages need each token's KL divergence from the reference. */
  readonly needsKl: boolean
  /** Advantages of a rollout: one a completion, or one a token. `kl` has old - reference of every token, where it is needed. */
  advantages(
    scores: readonly (readonly (number | null)[])[],
    weights: readonly number[],
    groupSizes: readonly number[],
    lengths: readonly number[],
    kl: readonly Float64Array[] | undefined,
  ): Omit<Advantages, "advantages"> & { readonly advantages: readonly (number | Float64Array)[] }
}

/** A completion before it has an advantage. */
interface Judged {
  readonly example: PromptExample
  readonly completion: RicherCompletion
  readonly text: string
}

const ROLLOUT_FILE = "rollout.json"

// Streams of seeds: replacement prompts and evaluations must not repeat the draws of a step.
const REPLACEMENTS = 0x52455053
const EVALUATION = 0x4556414c

/** A seed for generation from the run's seed, the step and the round within it. */
const stepSeed = (seed: number, step: number, round: number): number => requestSeed(seed, step, round)

/** What an engine may say of a completion beyond the contract. */
interface RicherCompletion extends Completion {
  /** 0 for tokens that an environment wrote. */
  readonly mask?: Uint8Array
  /** More for its line in `samples.jsonl`. */
  readonly details?: Readonly<Record<string, unknown>>
}

/** Engines that can do more than the contract asks for. */
interface RicherEngine extends RolloutEngine {
  generate(
    prompts: readonly TokenPrompt[],
    options: Parameters<RolloutEngine["generate"]>[1],
    control?: { readonly signal?: AbortSignal },
  ): ReturnType<RolloutEngine["generate"]>
  release?(): void
}

/** Checks that there are rewards, and a weight for each. Errors: SLOTH_RL_NO_REWARD, SLOTH_RL_SETTINGS. */
export const checkRewards = (method: Pick<GroupMethod, "name" | "rewardWeights">, rewards: readonly Reward[]): void => {
  if (rewards.length === 0)
    throw new SlothError("SLOTH_RL_NO_REWARD", {
      what: `The method "${method.name}" has no reward to learn from.`,
      next: "Name one or more with --reward (a file, or a name of the library), or rewards: [...] in code.",
    })
  if (method.rewardWeights !== undefined && method.rewardWeights.length !== rewards.length)
    throw new SlothError("SLOTH_RL_SETTINGS", {
      what: `There are ${rewards.length} rewards and ${method.rewardWeights.length} rewardWeights.`,
      next: "Give one weight a reward, in order.",
      fields: { rewards: rewards.map(({ name }) => name), weights: method.rewardWeights },
    })
}

/** Samples groups of completions, judges them, and turns them into units with advantages. */
export class GroupSource implements UnitSource<SampledUnit> {
  readonly #method: GroupMethod
  readonly #rows: readonly PromptExample[]
  readonly #heldOut: readonly PromptExample[]
  readonly #context: SourceContext
  readonly #engine: RicherEngine
  readonly #weights: readonly number[]
  readonly #adviser: Adviser
  #rollout: StoredRollout | undefined
  #done = 0
  /** Said at the first step. */
  #uncorrected: boolean

  private constructor(
    method: GroupMethod,
    rows: readonly PromptExample[],
    heldOut: readonly PromptExample[],
    context: SourceContext,
    engine: RolloutEngine,
  ) {
    this.#method = method
    this.#rows = rows
    this.#heldOut = heldOut
    this.#context = context
    this.#engine = engine
    const { rewards } = context
    // Methods without a correction have no such setting.
    const { correction = "auto" } = context.settings as { readonly correction?: string }
    this.#uncorrected = context.rollout?.elsewhere === true && correction === "auto"
    this.#weights = method.rewardWeights ?? rewards.map(({ weight }) => weight ?? 1)
    this.#adviser = new Adviser(method.maxCompletionLength, context.config.batch * method.reuse.slices)
  }

  /** Opens the engine. */
  static async open(
    method: GroupMethod,
    rows: readonly PromptExample[],
    heldOut: readonly PromptExample[],
    context: SourceContext,
  ): Promise<GroupSource> {
    const { model, tokenizer } = context
    const sizes = [...rows, ...heldOut].map(({ tokens }) => tokens.length)
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
    const engine =
      context.rollout === undefined
        ? localRollout.create(model, options)
        : await context.rollout.create(model as never, options as never)
    return new GroupSource(method, rows, heldOut, context, engine)
  }

  async collect(step: number, rowsOf: (step: number) => Int32Array): Promise<Collected<SampledUnit>> {
    const { slices, times } = this.#method.reuse
    const phase = (step - 1) % (slices * times)
    if (this.#uncorrected) {
      this.#uncorrected = false
      await this.#context.warn(
        "SLOTH_RL_UNCORRECTED",
        `The engine "${this.#context.rollout!.name}" samples a little off the policy, and nothing corrects for it: ` +
          (this.#method.temperature === 1
            ? `the method "${this.#method.name}" has no correction. Methods of the GRPO family have one.`
            : "its log-probs are those before the temperature. A temperature of 1 has a correction."),
        step,
        { method: this.#method.name, temperature: this.#method.temperature },
      )
    }
    let metrics: Readonly<Record<string, number>> = {}
    if (phase === 0) {
      const made = await this.#generate(
        step,
        Array.from({ length: slices }, (_, i) => Array.from(rowsOf(step + i), (row) => this.#rows[row]!)),
      )
      this.#rollout = made.rollout
      ;({ metrics } = made)
    }
    if (this.#rollout === undefined || this.#rollout.step !== step - phase)
      throw new SlothError("SLOTH_RL_ROLLOUT_LOST", {
        what: `Step ${step} goes on with the completions of step ${step - phase}, which are not there.`,
        why: "The checkpoint does not hold them.",
        next: "Resume from another checkpoint.",
        fields: { step, rollout: step - phase },
      })
    const groups = this.#rollout.slices[phase % slices]!
    return { units: this.#units(groups, this.#rollout.stepTokens), metrics }
  }

  async trained(step: number, metrics: Readonly<Record<string, number>>): Promise<void> {
    this.#done = step
    this.#engine.weightsChanged?.()
    for (const { code, message, fields } of this.#adviser.take(metrics))
      await this.#context.warn(code, message, step, fields)
  }

  save(): ReadonlyMap<string, Uint8Array> {
    const { slices, times } = this.#method.reuse
    const used = this.#done % (slices * times) === 0
    return used || this.#rollout === undefined ? new Map() : new Map([[ROLLOUT_FILE, writeRollout(this.#rollout)]])
  }

  restore(files: ReadonlyMap<string, Uint8Array>): void {
    const bytes = files.get(ROLLOUT_FILE)
    if (bytes !== undefined) this.#rollout = readRollout(bytes)
  }

  /** One completion for every held-out prompt, with the same draws each time. */
  async evaluate(step: number) {
    const { config } = this.#context
    const judged = await this.#sample(this.#heldOut, 1, requestSeed(config.seed, EVALUATION, 0), step)
    const run = await this.#judge(judged)
    const { rewards, metrics } = this.#method.advantages(
      run.scores,
      this.#weights,
      judged.map(() => 1),
      judged.map(({ completion }) => completion.tokens.length),
      this.#method.needsKl ? judged.map(({ completion }) => new Float64Array(completion.tokens.length)) : undefined,
    )
    const known = Array.from(rewards).filter((x) => !Number.isNaN(x))
    return {
      // Runs keep the checkpoint of the lowest loss: here that is the highest reward.
      loss: known.length === 0 ? 0 : -mean(known),
      scoredTokens: judged.reduce((n, { completion }) => n + completion.tokens.length, 0),
      metrics: finite({ reward: metrics["reward"] ?? 0, ...run.metrics, ...lengths(judged) }),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine[Symbol.asyncDispose]()
  }

  #units(groups: readonly SampledGroup[], stepTokens: number): SampledUnit[] {
    return groups.flatMap(({ row, prompt, samples }) =>
      sampledUnits(prompt, samples, row, this.#context.split.tokenBudget).map((unit) => ({ ...unit, stepTokens })),
    )
  }

  /** Samples `count` completions for each prompt, in order of prompt and index. */
  async #sample(examples: readonly PromptExample[], count: number, seed: number, step: number): Promise<Judged[]> {
    const { signal, tokenizer } = this.#context
    const { maxCompletionLength, temperature, topP, topK, minP, repetitionPenalty, stop } = this.#method
    const places: (Judged | undefined)[] = Array.from({ length: examples.length * count })
    signal?.throwIfAborted()
    try {
      const stream = this.#engine.generate(
        examples.map(({ tokens }) => ({ tokens, count })),
        { maxTokens: maxCompletionLength, temperature, topP, topK, minP, repetitionPenalty, stop, seed },
        signal === undefined ? {} : { signal },
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
      this.#engine.release?.()
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
    return places as Judged[]
  }

  async #judge(judged: readonly Judged[]): Promise<RewardRun> {
    const { rewards, signal } = this.#context
    const samples = judged.map(({ example, completion, text }): RewardSample => ({
      prompt: example.prompt,
      completion: text,
      completionTokens: completion.tokens,
      finishReason: completion.finishReason,
      row: example.columns,
    }))
    return runRewards(rewards, samples, {
      onError: this.#method.onRewardError === "stop" ? "throw" : "null",
      timeoutSeconds: this.#method.rewardTimeout,
      ...(signal === undefined ? {} : { signal }),
    })
  }

  /** Sums of the weighted scores of groups, to see which of them teach nothing. */
  #flat(scores: RewardRun["scores"], groups: number): ReadonlySet<number> {
    const count = this.#method.numGenerations
    return new Set(
      Array.from({ length: groups }, (_, g) => g).filter((g) => {
        const sums = Array.from({ length: count }, (_, i) => g * count + i)
          .filter((i) => scores.some((column) => column[i] !== null))
          .map((i) => scores.reduce((n, column, k) => n + this.#weights[k]! * (column[i] ?? 0), 0))
        return sums.every((x) => Math.abs(x - sums[0]!) < 1e-8)
      }),
    )
  }

  async #generate(
    step: number,
    slices: readonly (readonly PromptExample[])[],
  ): Promise<{ rollout: StoredRollout; metrics: Readonly<Record<string, number>> }> {
    const { config } = this.#context
    const { numGenerations: count, dynamicSampling } = this.#method
    const wanted = slices.flat()
    let [rolloutSeconds, scoreSeconds, sampledTokens, resampled] = [0, 0, 0, 0]
    const problems: RewardRun["problems"][number][] = []
    const round = async (examples: readonly PromptExample[], k: number) => {
      const started = performance.now()
      const judged = await this.#sample(examples, count, stepSeed(config.seed, step, k), step)
      const generated = performance.now()
      const run = await this.#judge(judged)
      rolloutSeconds += (generated - started) / 1000
      scoreSeconds += (performance.now() - generated) / 1000
      sampledTokens += judged.reduce((n, { completion }) => n + completion.tokens.length, 0)
      problems.push(...run.problems)
      return { judged, run }
    }
    const first = await round(wanted, 0)
    let { judged } = first
    let scores = first.run.scores.map((column) => [...column])
    let noted = first.run.metrics
    if (dynamicSampling > 0) {
      // Groups that teach nothing give their place to other prompts, in an order that follows from seed and step.
      const order = epochOrder(this.#rows.length, requestSeed(config.seed, REPLACEMENTS, step), 0, "shuffle")
      let next = 0
      for (let k = 1; k <= dynamicSampling; k++) {
        const flat = [...this.#flat(scores, wanted.length)]
        if (flat.length === 0) break
        const examples = flat.map(() => this.#rows[order[next++ % order.length]!]!)
        const more = await round(examples, k)
        resampled += examples.length
        const useless = this.#flat(more.run.scores, examples.length)
        judged = [...judged]
        for (const [i, g] of flat.entries()) {
          if (useless.has(i)) continue
          for (let c = 0; c < count; c++) {
            judged[g * count + c] = more.judged[i * count + c]!
            for (const [r, column] of scores.entries()) column[g * count + c] = more.run.scores[r]![i * count + c]!
          }
        }
        noted = { ...more.run.metrics, ...noted }
      }
      if (resampled > 0) noted = { ...noted, ...scoreMetrics(this.#context.rewards, scores) }
    }
    for (const { reward, error, samples } of problems)
      await this.#context.warn(
        error.code,
        `${error.message} ${samples.length} completions count as not scored.`,
        step,
        {
          reward,
          samples: samples.length,
        },
      )
    const started = performance.now()
    const result = await this.#advance(step, slices, judged, scores)
    this.#record(step, judged, scores, result.rewards, result.advantages)
    await this.#show(step, judged, result.rewards)
    const metrics = finite({
      ...result.metrics,
      ...noted,
      ...lengths(judged),
      "completions/clipped_ratio": mean(judged.map(({ completion }) => (completion.finishReason === "length" ? 1 : 0))),
      ...(dynamicSampling > 0 ? { "groups/resampled": resampled } : {}),
      "rollout/tokens_per_second": sampledTokens / rolloutSeconds,
      "seconds/rollout": rolloutSeconds,
      "seconds/score": scoreSeconds,
      "seconds/prepare": (performance.now() - started) / 1000,
    })
    return { rollout: result.rollout, metrics }
  }

  /** Advantages, masks, and the log-probs that later updates compare with. */
  async #advance(
    step: number,
    slices: readonly (readonly PromptExample[])[],
    judged: readonly Judged[],
    scores: readonly (readonly (number | null)[])[],
  ) {
    const { maskTruncated, numGenerations: count, reuse, needsKl, temperature } = this.#method
    const plain = judged.map(({ completion: { tokens, finishReason, logprobs, mask } }): SampledCompletion => ({
      tokens,
      advantage: 0,
      // Engines give log-probs before the temperature; with another temperature they are of another distribution.
      ...(temperature === 1 && logprobs.length === tokens.length ? { sampling: Float64Array.from(logprobs) } : {}),
      ...(mask === undefined ? {} : { mask }),
      ...(maskTruncated && finishReason === "length" ? { mask: new Uint8Array(tokens.length) } : {}),
    }))
    const group = (g: number, samples: readonly SampledCompletion[]): SampledGroup => {
      const { row, tokens } = judged[g * count]!.example
      return { row, prompt: tokens, samples: samples.slice(g * count, (g + 1) * count) }
    }
    let at = 0
    const numbers = slices.map((examples) => examples.map(() => at++))
    const old: (Float64Array | undefined)[] = judged.map(() => undefined)
    const kl: Float64Array[] = []
    // In the first and only update the policy is the one that sampled: its ratio is 1 without having been computed.
    if (reuse.slices * reuse.times > 1 || needsKl)
      for (const groups of numbers) {
        const units = this.#units(
          groups.map((g) => group(g, plain)),
          1,
        )
        const policy = await this.#logprobs(units, true)
        const reference = needsKl ? await this.#logprobs(units, false) : undefined
        const start = (groups[0] ?? 0) * count
        for (const [i, values] of policy.entries()) {
          old[start + i] = values
          if (reference !== undefined) kl[start + i] = values.map((x, t) => x - reference[i]![t]!)
        }
      }
    const result = this.#method.advantages(
      scores,
      this.#weights,
      Array.from({ length: judged.length / count }, () => count),
      plain.map(({ tokens }) => tokens.length),
      needsKl ? kl : undefined,
    )
    const samples = plain.map((sample, i): SampledCompletion => ({
      ...sample,
      advantage: result.advantages[i]!,
      ...(old[i] === undefined ? {} : { old: old[i] }),
    }))
    const tokens = samples.reduce((n, { mask, tokens: { length } }) => n + maskedCount(mask, length), 0)
    const rollout: StoredRollout = {
      step,
      slices: numbers.map((groups) => groups.map((g) => group(g, samples))),
      stepTokens: tokens / reuse.slices,
    }
    const meanKl: Record<string, number> = needsKl ? { kl: mean(kl.map((values) => mean(values))) } : {}
    return { ...result, metrics: { ...result.metrics, ...meanKl }, rollout }
  }

  /** Log-probs of every completion of units, by the passes that training them makes: where nothing has changed since, the ratio is exactly 1. */
  async #logprobs(units: readonly SampledUnit[], adapters: boolean): Promise<Float64Array[]> {
    const { model, split, signal } = this.#context
    const found = new Map<SampledUnit, Float64Array[]>()
    for (const indices of splitUnits(units, split)) {
      signal?.throwIfAborted()
      const batch = buildMicroBatch(indices.map((i) => units[i]!))
      const { logprobs } = await readLogprobs(model, batch, { adapters, temperature: this.#method.temperature })
      for (const [u, unit] of batch.units.entries())
        found.set(
          unit,
          unit.completions.map((positions) => pick(logprobs, batch.starts[u]!, positions)),
        )
    }
    return units.flatMap((unit) => found.get(unit)!)
  }

  #record(
    step: number,
    judged: readonly Judged[],
    scores: readonly (readonly (number | null)[])[],
    rewards: Float64Array,
    advantages: readonly (number | Float64Array)[],
  ): void {
    const { numGenerations: count } = this.#method
    this.#context.record(
      judged.map(({ example, completion, text }, i) => {
        const advantage = advantages[i]!
        return {
          step,
          row: example.row,
          index: i % count,
          prompt: example.prompt,
          completion: text,
          tokens: completion.tokens.length,
          finish: completion.finishReason,
          rewards: Object.fromEntries(this.#context.rewards.map(({ name }, k) => [name, scores[k]![i]])),
          reward: Number.isNaN(rewards[i]!) ? null : rewards[i]!,
          advantage: typeof advantage === "number" ? advantage : mean(advantage),
          ...completion.details,
        }
      }),
    )
  }

  /** Shows the best and the worst completion of the group whose rewards differ most. */
  async #show(step: number, judged: readonly Judged[], rewards: Float64Array): Promise<void> {
    const { numGenerations: count } = this.#method
    let best: readonly [high: number, low: number] = [0, 0]
    for (let g = 0; g < judged.length; g += count) {
      const places = Array.from({ length: count }, (_, i) => g + i).filter((i) => !Number.isNaN(rewards[i]!))
      if (places.length === 0) continue
      const high = places.reduce((a, b) => (rewards[b]! > rewards[a]! ? b : a))
      const low = places.reduce((a, b) => (rewards[b]! < rewards[a]! ? b : a))
      if (g === 0 || rewards[high]! - rewards[low]! > rewards[best[0]]! - rewards[best[1]]!) best = [high, low]
    }
    for (const i of new Set(best))
      await this.#context.show({
        step,
        prompt: questionOf(judged[i]!.example.prompt),
        completion: judged[i]!.text,
        ...(Number.isFinite(rewards[i]) ? { reward: rewards[i]! } : {}),
      })
  }
}

/** What a person asked last. */
const questionOf = (prompt: PromptExample["prompt"]): string =>
  typeof prompt === "string" ? prompt : (prompt.findLast(({ role }) => role !== "assistant")?.content ?? "")

/** A text up to the first of the texts that end it. */
const textOf = (text: string, stop: readonly string[]): string => {
  const ends = stop.map((end) => text.indexOf(end)).filter((at) => at >= 0)
  return ends.length === 0 ? text : text.slice(0, Math.min(...ends))
}

const finite = (figures: Readonly<Record<string, number>>): Record<string, number> =>
  Object.fromEntries(Object.entries(figures).filter(([, value]) => Number.isFinite(value)))

/** Lengths of completions, and of those that ended by themselves. */
const lengths = (judged: readonly Judged[]): Record<string, number> => {
  const of = (some: readonly Judged[], name: string): Record<string, number> => {
    const values = some.map(({ completion }) => completion.tokens.length)
    return values.length === 0
      ? {}
      : {
          [`completions/mean_${name}`]: mean(values),
          [`completions/min_${name}`]: Math.min(...values),
          [`completions/max_${name}`]: Math.max(...values),
        }
  }
  return {
    ...of(judged, "length"),
    ...of(
      judged.filter(({ completion }) => completion.finishReason === "stop"),
      "terminated_length",
    ),
  }
}

/** Means and deviations of scores, where completions have been exchanged since the rewards were run. */
const scoreMetrics = (
  rewards: readonly Reward[],
  scores: readonly (readonly (number | null)[])[],
): Record<string, number> => {
  const metrics: Record<string, number> = {}
  for (const [k, { name }] of rewards.entries()) {
    const values = scores[k]!.filter((score) => score !== null)
    if (values.length === 0) continue
    const center = mean(values)
    metrics[`rewards/${name}/mean`] = center
    metrics[`rewards/${name}/std`] =
      values.length < 2 ? 0 : Math.sqrt(values.reduce((n, x) => n + (x - center) ** 2, 0) / (values.length - 1))
  }
  return metrics
}
