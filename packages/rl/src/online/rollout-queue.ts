import { requestSeed } from "@sloth/infer"
import type { PromptExample } from "../data/prompts.ts"
import type { RewardRun } from "../rewards/run-rewards.ts"
import { readDrawn, writeDrawn, type DrawnRollout } from "./drawn-rollout.ts"
import type { GroupSampler, KeepPrompts } from "./group-sampler.ts"

/** How a {@link RolloutQueue} works. */
export interface RolloutQueueOptions {
  readonly rows: readonly PromptExample[]
  /** Completions of each prompt. */
  readonly count: number
  /** Seed of the run. */
  readonly seed: number
  /** Optimizer steps that take their prompts from one rollout. */
  readonly slices: number
  /** Optimizer steps that a rollout feeds. */
  readonly steps: number
  /** Rollouts that are made before they are needed. */
  readonly ahead: number
  /** Optimizer steps of the run; nothing is sampled for later ones. */
  readonly total: number
  readonly signal: AbortSignal | undefined
  /** Who keeps what has been computed of prompts; not beside training. */
  readonly keep?: KeepPrompts
}

/** A rollout with its scores. */
export interface JudgedRollout {
  readonly drawn: DrawnRollout
  readonly run: RewardRun
  readonly scoreSeconds: number
}

/** A rollout on its way. */
interface Entry {
  readonly drawing: Promise<DrawnRollout>
  drawn?: DrawnRollout
  scoring?: Promise<JudgedRollout>
  judged?: JudgedRollout
}

/** True for episodes, whose environment told more than tokens and text do: they cannot be scored again. */
const areEpisodes = ({ sampled }: DrawnRollout): boolean =>
  sampled.some(({ completion: { mask } }) => mask !== undefined)

/**
 * Rollouts from being sampled to being trained on. What is sampled ahead is sampled before the update begins, by weights that stand still, in the order of steps: then results follow from
 * the seed alone, and only scoring goes on beside training. An engine that works elsewhere samples beside training too; it is handed the weights between two updates, and
 * works through what is missing with them.
 */
export class RolloutQueue implements AsyncDisposable {
  readonly #sampler: GroupSampler
  readonly #options: RolloutQueueOptions
  readonly #entries = new Map<number, Entry>()
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  /** The last rollout that is being sampled beside training. */
  #tail: Promise<unknown> | undefined

  constructor(sampler: GroupSampler, options: RolloutQueueOptions) {
    this.#sampler = sampler
    this.#options = options
    const { signal } = options
    this.#signal = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal])
  }

  /** The rollout of steps from `step` on, and the sampling of those to come; called between two updates, in order of steps. */
  async take(step: number, rowsOf: (step: number) => Int32Array): Promise<JudgedRollout> {
    const { ahead, steps, total } = this.#options
    // Those of a checkpoint.
    for (const entry of this.#entries.values()) if (entry.drawn !== undefined) this.#judge(entry)
    const missing = (): number[] =>
      Array.from({ length: ahead + 1 }, (_, i) => step + i * steps).filter(
        (first) => first <= total && !this.#entries.has(first),
      )
    if (ahead > 0 && this.#sampler.besideTraining) {
      const begin = async (): Promise<void> => {
        const steps = missing()
        // While the engine works with older weights it cannot be handed new ones.
        if (steps.length === 0 || this.#tail !== undefined) return
        await this.#sampler.syncWeights(this.#signal)
        for (const first of steps) this.#begin(first, step - 1, rowsOf, true)
      }
      await begin()
      // Where training waits for the engine, it is free only now.
      await this.#entries.get(step)!.drawing
      await begin()
    } else
      for (const first of missing()) {
        const entry = this.#begin(first, step - 1, rowsOf, false)
        // What an environment has noted of its episodes is of the last that it has played.
        if (areEpisodes(await entry.drawing)) await entry.scoring
      }
    const entry = this.#entries.get(step)!
    await entry.drawing
    return await entry.scoring!
  }

  /** Lets go of what has been trained on. */
  trained(step: number): void {
    for (const first of this.#entries.keys()) if (first <= step) this.#entries.delete(first)
  }

  /** Resolves when nothing is being sampled. */
  async idle(): Promise<void> {
    await this.#tail?.catch(() => undefined)
  }

  /** What has been sampled and not been trained on, as bytes; undefined where there is nothing. What is being sampled now is left out: it is sampled again. */
  save(): Uint8Array | undefined {
    const { rows } = this.#options
    const draws = [...this.#entries.values()].flatMap(({ drawn, judged }) => {
      if (drawn === undefined) return []
      // What failed is scored again, and said again.
      if (judged !== undefined && (judged.run.problems.length === 0 || areEpisodes(drawn)))
        return [{ drawn, run: judged.run }]
      return areEpisodes(drawn) ? [] : [{ drawn }]
    })
    if (draws.length === 0) return undefined
    return writeDrawn(draws, new Map(rows.map((row, i) => [row, i])))
  }

  /** Takes back what {@link save} gave. */
  restore(bytes: Uint8Array): void {
    const { rows, count } = this.#options
    for (const { drawn, run } of readDrawn(bytes, rows, count)) {
      const judged = run && { drawn, run: { ...run, problems: [], seconds: [] }, scoreSeconds: 0 }
      this.#entries.set(drawn.step, {
        drawing: Promise.resolve(drawn),
        drawn,
        ...(judged === undefined ? {} : { judged, scoring: Promise.resolve(judged) }),
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("The run has ended."))
    const left = [...this.#entries.values()].flatMap(({ drawing, scoring }) => [drawing, scoring])
    await Promise.allSettled([this.#tail, ...left])
  }

  /** Begins to sample a rollout, after the one before where that is `beside` training. */
  #begin(first: number, made: number, rowsOf: (step: number) => Int32Array, beside: boolean): Entry {
    const { rows, slices, count, seed, keep } = this.#options
    const prompts = Array.from({ length: slices }, (_, i) => Array.from(rowsOf(first + i), (row) => rows[row]!))
    const draw = async (): Promise<DrawnRollout> => {
      const started = performance.now()
      const sampled = await this.#sampler.sample(
        prompts.flat(),
        count,
        requestSeed(seed, first, 0),
        first,
        this.#signal,
        keep,
      )
      entry.drawn = { step: first, made, slices: prompts, sampled, seconds: (performance.now() - started) / 1000 }
      this.#judge(entry)
      return entry.drawn
    }
    const before = beside ? this.#tail : undefined
    const drawing = before === undefined ? Promise.resolve().then(draw) : before.then(draw)
    const entry: Entry = { drawing }
    this.#entries.set(first, entry)
    const failed = (): void => {
      // What was not sampled is sampled when it is needed.
      if (this.#entries.get(first) === entry && !beside) this.#entries.delete(first)
    }
    drawing.catch(failed)
    if (beside) {
      this.#tail = drawing
      const done = (): void => void (this.#tail === drawing && (this.#tail = undefined))
      drawing.then(done, done)
    }
    return entry
  }

  #judge(entry: Entry): void {
    if (entry.scoring !== undefined) return
    const drawn = entry.drawn!
    const judge = async (): Promise<JudgedRollout> => {
      const started = performance.now()
      const run = await this.#sampler.judge(drawn.sampled, this.#signal)
      entry.judged = { drawn, run, scoreSeconds: (performance.now() - started) / 1000 }
      return entry.judged
    }
    entry.scoring = judge()
    // It is awaited at its step.
    entry.scoring.catch(() => undefined)
  }
}
