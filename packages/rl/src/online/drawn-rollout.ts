import type { Completion } from "@sloth/core"
import type { PromptExample } from "../data/prompts.ts"
import type { RewardRun } from "../rewards/run-rewards.ts"
import type { Sampled } from "./group-sampler.ts"

/** Completions that were sampled for steps to come, before they are scored. */
export interface DrawnRollout {
  /** First optimizer step that trains on it. */
  readonly step: number
  /** Updates that the weights had seen which sampled it. */
  readonly made: number
  /** Prompts of each step. */
  readonly slices: readonly (readonly PromptExample[])[]
  /** In order of prompt and index. */
  readonly sampled: readonly Sampled[]
  readonly seconds: number
}

/** A rollout with its scores, where they are there. */
export interface ScoredDraw {
  readonly drawn: DrawnRollout
  readonly run?: Pick<RewardRun, "scores" | "metrics">
}

interface Packed {
  readonly step: number
  readonly made: number
  readonly seconds: number
  /** Places of the prompts in the list of rows. */
  readonly slices: readonly (readonly number[])[]
  readonly completions: readonly {
    readonly tokens: readonly number[]
    readonly logprobs: string
    readonly text: string
    readonly finishReason: Completion["finishReason"]
    readonly mask?: string
    readonly details?: Readonly<Record<string, unknown>>
  }[]
  readonly run?: ScoredDraw["run"]
}

// Base64 of the bytes: a resumed run must get every bit back.
const base64 = (values: Float64Array | Uint8Array): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("base64")
const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "base64"))

/** Rollouts as bytes of a checkpoint file; `places` says where a prompt stands in the list of rows. */
export const writeDrawn = (draws: readonly ScoredDraw[], places: ReadonlyMap<PromptExample, number>): Uint8Array =>
  Buffer.from(
    JSON.stringify({
      format: 1,
      rollouts: draws.map(({ drawn: { step, made, seconds, slices, sampled }, run }): Packed => ({
        step,
        made,
        seconds,
        slices: slices.map((examples) => examples.map((example) => places.get(example)!)),
        completions: sampled.map(({ text, completion: { tokens, logprobs, finishReason, mask, details } }) => ({
          tokens: Array.from(tokens),
          logprobs: base64(Float64Array.from(logprobs)),
          text,
          finishReason,
          ...(mask === undefined ? {} : { mask: base64(mask) }),
          ...(details === undefined ? {} : { details }),
        })),
        ...(run === undefined ? {} : { run: { scores: run.scores, metrics: run.metrics } }),
      })),
    }),
  )

/** The rollouts that {@link writeDrawn} wrote, with `count` completions a prompt. */
export const readDrawn = (bytes: Uint8Array, rows: readonly PromptExample[], count: number): ScoredDraw[] => {
  const { rollouts } = JSON.parse(Buffer.from(bytes).toString("utf8")) as { readonly rollouts: readonly Packed[] }
  return rollouts.map(({ completions, run, ...rollout }) => {
    const slices = rollout.slices.map((places) => places.map((place) => rows[place]!))
    const examples = slices.flat()
    const sampled = completions.map(({ tokens, logprobs, text, finishReason, mask, details }, i) => ({
      example: examples[Math.floor(i / count)]!,
      text,
      completion: {
        prompt: Math.floor(i / count),
        index: i % count,
        tokens,
        logprobs: Array.from(new Float64Array(bytesOf(logprobs).buffer)),
        finishReason,
        ...(mask === undefined ? {} : { mask: bytesOf(mask) }),
        ...(details === undefined ? {} : { details }),
      },
    }))
    return { drawn: { ...rollout, slices, sampled }, ...(run === undefined ? {} : { run }) }
  })
}
