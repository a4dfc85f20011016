import { SlothError } from "@sloth/core"
import { epochOrder } from "@sloth/data"
import { requestSeed, type KnownPrefix } from "@sloth/infer"
import type { Collected, SourceContext, UnitSource } from "@sloth/train"
import type { PromptExample } from "../data/prompts.ts"
import { mean } from "../internal/math.ts"
import type { RewardRun } from "../rewards/run-rewards.ts"
import { Adviser } from "./advice.ts"
import { hasPairJudge, judgesPairsError, stepsOf, type GroupMethod } from "./group-method.ts"
import { GroupSampler } from "./group-sampler.ts"
import { advanceRollout, budgetOf, unitsOf } from "./rollout-advance.ts"
import { ReplayBuffer } from "./replay-buffer.ts"
import { replayGroups } from "./replay-groups.ts"
import { extremes, finite, lengths, questionOf, sampleRecords, scoreMetrics } from "./rollout-figures.ts"
import { RolloutQueue, type JudgedRollout } from "./rollout-queue.ts"
import type { SampledUnit } from "./sampled-unit.ts"
import { readRollout, writeRollout, type StoredRollout } from "./stored-rollout.ts"

const ROLLOUT_FILE = "rollout.json"
const DRAWN_FILE = "rollouts-ahead.json"
const REPLAY_FILE = "replay.json"

// Streams of seeds: replacement prompts and evaluations must not repeat the draws of a step.
const REPLACEMENTS = 0x52455053
const EVALUATION = 0x4556414c
const REPLAY = 0x5245504c

/** Samples groups of completions, judges them, and turns them into units with advantages. */
export class GroupSource implements UnitSource<SampledUnit> {
  readonly #method: GroupMethod
  readonly #rows: readonly PromptExample[]
  readonly #heldOut: readonly PromptExample[]
  readonly #context: SourceContext
  readonly #sampler: GroupSampler
  readonly #queue: RolloutQueue
  readonly #weights: readonly number[]
  readonly #adviser: Adviser
  readonly #replay: ReplayBuffer | undefined
  #rollout: StoredRollout | undefined
  /** Updates that the weights had seen which sampled the rollout in use. */
  #made = 0
  #done = 0
  /** What the rollout in use has computed of its groups' prompts, by group. */
  readonly #kept = new Map<number, KnownPrefix>()
  /** What there is to say at the first step. */
  readonly #warnings: Parameters<SourceContext["warn"]>[] = []

  private constructor(
    method: GroupMethod,
    rows: readonly PromptExample[],
    heldOut: readonly PromptExample[],
    context: SourceContext,
    sampler: GroupSampler,
  ) {
    this.#method = method
    this.#rows = rows
    this.#heldOut = heldOut
    this.#context = context
    this.#sampler = sampler
    const { rewards, config, signal } = context
    const steps = stepsOf(method)
    this.#queue = new RolloutQueue(sampler, {
      rows,
      count: method.numGenerations,
      seed: config.seed,
      slices: method.reuse.slices,
      steps,
      ahead: this.#ahead,
      total: context.steps,
      signal,
      ...((context.keptPrompts ?? 0) === 0
        ? {}
        : {
            keep: {
              keepPrompts: context.keptPrompts!,
              keep: (group: number, prefix: KnownPrefix) => void this.#kept.set(group, prefix),
            },
          }),
    })
    this.#weights = method.rewardWeights ?? rewards.map(({ weight }) => weight ?? 1)
    const { ties } = context.settings as { readonly ties?: "first" | "skip" }
    this.#adviser = new Adviser(
      method.maxCompletionLength,
      config.batch * method.reuse.slices,
      method.together !== true ? undefined : ties === "first" && !hasPairJudge(rewards) ? "first" : "nothing",
    )
    this.#replay = (method.replayBuffer ?? 0) > 0 ? new ReplayBuffer(method.replayBuffer!) : undefined
    this.#foresee()
  }

  /** Opens the engine. */
  static async open(
    method: GroupMethod,
    rows: readonly PromptExample[],
    heldOut: readonly PromptExample[],
    context: SourceContext,
  ): Promise<GroupSource> {
    if (heldOut.length > 0 && hasPairJudge(context.rewards))
      throw judgesPairsError(
        method.name,
        "Leave evaluation data out, or evaluate a finished run with a reward or with llmJudge.",
      )
    const sizes = [...rows, ...heldOut].map(({ tokens }) => tokens.length)
    return new GroupSource(method, rows, heldOut, context, await GroupSampler.open(method, sizes, context))
  }

  /** Rollouts that are made before they are needed. */
  get #ahead(): number {
    return Math.floor((this.#method.maxStaleness ?? 0) / stepsOf(this.#method))
  }

  async collect(step: number, rowsOf: (step: number) => Int32Array): Promise<Collected<SampledUnit>> {
    const { slices } = this.#method.reuse
    const phase = (step - 1) % stepsOf(this.#method)
    for (const [code, message, , fields] of this.#warnings.splice(0))
      await this.#context.warn(code, message, step, fields)
    let metrics: Readonly<Record<string, number>> = {}
    if (phase === 0) metrics = await this.#begin(step, rowsOf)
    if (this.#rollout === undefined || this.#rollout.step !== step - phase)
      throw new SlothError("SLOTH_RL_ROLLOUT_LOST", {
        what: `Step ${step} goes on with the completions of step ${step - phase}, which are not there.`,
        why: "The checkpoint does not hold them.",
        next: "Resume from another checkpoint.",
        fields: { step, rollout: step - phase },
      })
    const groups = this.#rollout.slices[phase % slices]!
    return {
      units: unitsOf(groups, this.#rollout.stepTokens, budgetOf(this.#method, this.#context), this.#kept),
      metrics: this.#ahead > 0 ? { ...metrics, staleness: step - 1 - this.#made } : metrics,
    }
  }

  async trained(step: number, metrics: Readonly<Record<string, number>>): Promise<void> {
    this.#done = step
    this.#forget(...this.#kept.keys())
    this.#queue.trained(step)
    // Beside training an engine keeps the weights that it was handed until it is handed others.
    if (this.#ahead === 0 || !this.#sampler.besideTraining) this.#sampler.weightsChanged()
    for (const { code, message, fields } of this.#adviser.take(metrics))
      await this.#context.warn(code, message, step, fields)
  }

  save(): ReadonlyMap<string, Uint8Array> {
    const used = this.#done % stepsOf(this.#method) === 0
    const files = new Map<string, Uint8Array>()
    if (!used && this.#rollout !== undefined)
      files.set(ROLLOUT_FILE, writeRollout({ ...this.#rollout, made: this.#made }))
    const drawn = this.#queue.save()
    if (drawn !== undefined) files.set(DRAWN_FILE, drawn)
    if (this.#replay !== undefined) files.set(REPLAY_FILE, this.#replay.save())
    return files
  }

  restore(files: ReadonlyMap<string, Uint8Array>): void {
    const [rollout, drawn, replay] = [files.get(ROLLOUT_FILE), files.get(DRAWN_FILE), files.get(REPLAY_FILE)]
    if (replay !== undefined) this.#replay?.restore(replay)
    if (rollout !== undefined) {
      this.#rollout = readRollout(rollout)
      this.#made = this.#rollout.made ?? this.#rollout.step - 1
    }
    if (drawn !== undefined) this.#queue.restore(drawn)
  }

  /** One completion for every held-out prompt, with the same draws each time. */
  async evaluate(step: number) {
    const { config } = this.#context
    await this.#queue.idle()
    this.#sampler.weightsChanged()
    const sampled = await this.#sampler.sample(this.#heldOut, 1, requestSeed(config.seed, EVALUATION, 0), step)
    const run = await this.#sampler.judge(sampled)
    // Only rewards are looked at.
    const zeros = () => sampled.map(({ completion }) => new Float64Array(completion.tokens.length))
    const { rewards, metrics } = this.#method.advantages(
      run.scores,
      this.#weights,
      sampled.map(() => 1),
      sampled.map(({ completion }) => completion.tokens.length),
      this.#method.needsKl ? zeros() : undefined,
      {
        masks: sampled.map(({ completion }) => completion.mask),
        finish: sampled.map(({ completion }) => completion.finishReason),
        values: this.#method.needsValues === true ? zeros() : undefined,
      },
    )
    const known = Array.from(rewards).filter((x) => !Number.isNaN(x))
    return {
      // Runs keep the checkpoint of the lowest loss: here that is the highest reward.
      loss: known.length === 0 ? 0 : -mean(known),
      scoredTokens: sampled.reduce((n, { completion }) => n + completion.tokens.length, 0),
      metrics: finite({ reward: metrics["reward"] ?? 0, ...run.metrics, ...lengths(sampled) }),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queue[Symbol.asyncDispose]()
    this.#forget(...this.#kept.keys())
    await this.#sampler[Symbol.asyncDispose]()
  }

  /** Notes what a user should know of the engine before the first step. */
  #foresee(): void {
    const { rollout, settings } = this.#context
    const { name, temperature } = this.#method
    if (rollout?.elsewhere !== true) return
    // Methods without a correction have no such setting; ahead of training there always is one.
    const { correction = "auto" } = settings as { readonly correction?: string }
    if (correction === "auto" && this.#ahead === 0)
      this.#warnings.push([
        "SLOTH_RL_UNCORRECTED",
        `The engine "${rollout.name}" samples a little off the policy, and nothing corrects for it: ` +
          (temperature === 1
            ? `the method "${name}" has no correction. Methods of the GRPO family have one.`
            : "its log-probs are those before the temperature. A temperature of 1 has a correction."),
        0,
        { method: name, temperature },
      ])
    if (this.#ahead > 0 && !this.#sampler.besideTraining)
      this.#warnings.push([
        "SLOTH_RL_NOT_BESIDE",
        `The engine "${rollout.name}" does not say when it has taken the weights, so that it cannot sample while training goes on: only rewards are computed beside training.`,
        0,
        { engine: rollout.name },
      ])
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

  /** Takes the next rollout into use. */
  async #begin(step: number, rowsOf: (step: number) => Int32Array): Promise<Readonly<Record<string, number>>> {
    const { numGenerations: count, dynamicSampling } = this.#method
    // What an attempt that failed has left.
    this.#forget(...this.#kept.keys())
    const began = performance.now()
    const taken = await this.#queue.take(step, rowsOf)
    const waited = (performance.now() - began) / 1000
    const { sampled, scores, noted, problems, spent } = await this.#exchange(step, taken)
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
    const { slices, made } = taken.drawn
    const result = await advanceRollout(step, slices, sampled, scores, this.#weights, this.#method, this.#context)
    const { rewards } = this.#context
    this.#context.record(
      sampleRecords(step, count, sampled, {
        rewards,
        scores,
        totals: result.rewards,
        advantages: result.advantages,
      }),
    )
    for (const i of extremes(result.rewards, count))
      await this.#context.show({
        step,
        prompt: questionOf(sampled[i]!.example.prompt),
        completion: sampled[i]!.text,
        ...(Number.isFinite(result.rewards[i]) ? { reward: result.rewards[i]! } : {}),
      })
    const replayed = this.#replay === undefined ? undefined : replayGroups(this.#replay, result, this.#seed(step))
    this.#rollout = replayed?.rollout ?? result.rollout
    this.#made = made
    return finite({
      ...result.metrics,
      ...replayed?.metrics,
      ...noted,
      ...lengths(sampled),
      "completions/clipped_ratio": mean(
        sampled.map(({ completion }) => (completion.finishReason === "length" ? 1 : 0)),
      ),
      ...(dynamicSampling > 0 ? { "groups/resampled": spent.resampled } : {}),
      "rollout/tokens_per_second": spent.tokens / spent.rollout,
      "seconds/rollout": spent.rollout,
      "seconds/score": spent.score,
      // What is done beside training does not add up to the time of a step.
      ...(this.#ahead > 0 ? { "seconds/wait": waited } : {}),
      "seconds/prepare": (performance.now() - started) / 1000,
    })
  }

  /** Frees what is kept of the prompts of groups. */
  #forget(...groups: readonly number[]): void {
    for (const g of groups) {
      this.#kept.get(g)?.known[Symbol.dispose]()
      this.#kept.delete(g)
    }
  }

  #seed(step: number): number {
    return requestSeed(this.#context.config.seed, REPLAY, step)
  }

  /** Gives the place of groups that teach nothing to other prompts, in an order that follows from seed and step. */
  async #exchange(step: number, { drawn, run, scoreSeconds }: JudgedRollout) {
    const { config, rewards } = this.#context
    const { numGenerations: count, dynamicSampling } = this.#method
    const tokensOf = (all: DrawnSamples): number => all.reduce((n, { completion }) => n + completion.tokens.length, 0)
    const spent = { rollout: drawn.seconds, score: scoreSeconds, tokens: tokensOf(drawn.sampled), resampled: 0 }
    const sampled = [...drawn.sampled]
    const scores = run.scores.map((column) => [...column])
    const problems = [...run.problems]
    let noted = run.metrics
    if (dynamicSampling === 0) return { sampled, scores, noted, problems, spent }
    const order = epochOrder(this.#rows.length, requestSeed(config.seed, REPLACEMENTS, step), 0, "shuffle")
    const groups = sampled.length / count
    for (let k = 1; k <= dynamicSampling; k++) {
      const flat = [...this.#flat(scores, groups)]
      if (flat.length === 0) break
      const examples = flat.map((_, i) => this.#rows[order[(spent.resampled + i) % order.length]!]!)
      const started = performance.now()
      const others = await this.#sampler.sample(examples, count, requestSeed(config.seed, step, k), step)
      const generated = performance.now()
      const more = await this.#sampler.judge(others)
      spent.rollout += (generated - started) / 1000
      spent.score += (performance.now() - generated) / 1000
      spent.tokens += tokensOf(others)
      spent.resampled += examples.length
      problems.push(...more.problems)
      const useless = this.#flat(more.scores, examples.length)
      for (const [i, g] of flat.entries()) {
        if (useless.has(i)) continue
        this.#forget(g)
        for (let c = 0; c < count; c++) {
          sampled[g * count + c] = others[i * count + c]!
          for (const [r, column] of scores.entries()) column[g * count + c] = more.scores[r]![i * count + c]!
        }
      }
      noted = { ...more.metrics, ...noted }
    }
    if (spent.resampled > 0) noted = { ...noted, ...scoreMetrics(rewards, scores) }
    return { sampled, scores, noted, problems, spent }
  }
}

type DrawnSamples = JudgedRollout["drawn"]["sampled"]
