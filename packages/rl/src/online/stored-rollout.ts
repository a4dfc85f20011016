import type { SampledCompletion } from "./sampled-unit.ts"

/** Completions of one prompt with what is known of each. */
export interface SampledGroup {
  /** Row of the data set, from 0. */
  readonly row: number
  readonly prompt: readonly number[]
  readonly samples: readonly SampledCompletion[]
}

/** A rollout that optimizer steps are still taking their units from. */
export interface StoredRollout {
  /** Optimizer step it was made for. */
  readonly step: number
  /** Groups of each step. */
  readonly slices: readonly (readonly SampledGroup[])[]
  /** Scored tokens of an average step. */
  readonly stepTokens: number
  /** Updates that the weights had seen which sampled it; those before `step` when absent. */
  readonly made?: number
}

// Base64 of the bytes: a resumed run must get every bit back, the sign of a zero included.
const packed = (values: Float64Array | Uint8Array | undefined): string | undefined =>
  values === undefined ? undefined : Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("base64")
const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "base64"))
const doubles = (text: string): Float64Array => new Float64Array(bytesOf(text).buffer)

interface Packed {
  readonly tokens: readonly number[]
  readonly advantage: string
  /** True for one advantage a token. */
  readonly each: boolean
  readonly old?: string
  readonly sampling?: string
  readonly mask?: string
  readonly value?: string
  readonly returns?: string
}

const pack = ({ tokens, advantage, old, sampling, mask, value, returns }: SampledCompletion): Packed => ({
  tokens: Array.from(tokens),
  advantage: packed(typeof advantage === "number" ? Float64Array.of(advantage) : advantage)!,
  each: typeof advantage !== "number",
  ...(old === undefined ? {} : { old: packed(old)! }),
  ...(sampling === undefined ? {} : { sampling: packed(sampling)! }),
  ...(mask === undefined ? {} : { mask: packed(mask)! }),
  ...(value === undefined ? {} : { value: packed(value)! }),
  ...(returns === undefined ? {} : { returns: packed(returns)! }),
})

const unpack = ({ tokens, advantage, each, old, sampling, mask, value, returns }: Packed): SampledCompletion => ({
  tokens,
  advantage: each ? doubles(advantage) : doubles(advantage)[0]!,
  ...(old === undefined ? {} : { old: doubles(old) }),
  ...(sampling === undefined ? {} : { sampling: doubles(sampling) }),
  ...(mask === undefined ? {} : { mask: bytesOf(mask) }),
  ...(value === undefined ? {} : { value: doubles(value) }),
  ...(returns === undefined ? {} : { returns: doubles(returns) }),
})

/** A group in a form that JSON keeps. */
export type PackedGroup = Omit<SampledGroup, "samples"> & { readonly samples: readonly Packed[] }

/** A group for JSON, every bit of its numbers kept. */
export const writeGroup = (group: SampledGroup): PackedGroup => ({ ...group, samples: group.samples.map(pack) })

/** The group that {@link writeGroup} wrote. */
export const readGroup = (group: PackedGroup): SampledGroup => ({ ...group, samples: group.samples.map(unpack) })

/** A rollout as bytes of a checkpoint file. */
export const writeRollout = (rollout: StoredRollout): Uint8Array =>
  Buffer.from(
    JSON.stringify({
      format: 1,
      ...rollout,
      slices: rollout.slices.map((groups) => groups.map(writeGroup)),
    }),
  )

/** The rollout that {@link writeRollout} wrote. */
export const readRollout = (bytes: Uint8Array): StoredRollout => {
  const stored = JSON.parse(Buffer.from(bytes).toString("utf8")) as Omit<StoredRollout, "slices"> & {
    readonly slices: readonly (readonly PackedGroup[])[]
  }
  return {
    step: stored.step,
    stepTokens: stored.stepTokens,
    ...(stored.made === undefined ? {} : { made: stored.made }),
    slices: stored.slices.map((groups) => groups.map(readGroup)),
  }
}
