import { requestSeed } from "@sloth/infer"
import { readGroup, writeGroup, type PackedGroup, type SampledGroup } from "./stored-rollout.ts"

/** A group with how much it has to teach. */
interface Entry {
  readonly score: number
  readonly group: SampledGroup
}

/** What a group has to teach: the absolute advantages of its completions, added up, times the standard deviation of their rewards. */
export const replayScore = (advantages: ArrayLike<number>, deviation: number): number => {
  let total = 0
  for (let i = 0; i < advantages.length; i++) total += Math.abs(advantages[i]!)
  return total * deviation
}

/**
 * Groups of earlier rollouts that had much to teach, to take the place of new ones that teach nothing. It keeps those of the highest score, the older of two equal ones, and draws in
 * proportion to the score. Source: TRL 1.13, `GRPOWithReplayBufferTrainer`.
 */
export class ReplayBuffer {
  readonly #size: number
  #entries: Entry[] = []

  constructor(size: number) {
    this.#size = size
  }

  /** Groups that it holds. */
  get length(): number {
    return this.#entries.length
  }

  /** Offers a group; when the buffer is full it takes the place of the lowest one that it surpasses. */
  add(score: number, group: SampledGroup): void {
    if (this.#entries.length < this.#size) {
      this.#entries.push({ score, group })
      return
    }
    // In order of arrival: of several that are lowest the newest goes.
    let lowest = 0
    for (const [i, entry] of this.#entries.entries()) if (entry.score <= this.#entries[lowest]!.score) lowest = i
    if (score <= this.#entries[lowest]!.score) return
    this.#entries.splice(lowest, 1)
    this.#entries.push({ score, group })
  }

  /** Draws groups, none twice while there are enough. What is drawn follows from the seed and what is held. */
  draw(count: number, seed: number): SampledGroup[] {
    const again = count > this.#entries.length
    const left = [...this.#entries]
    const drawn: SampledGroup[] = []
    for (let k = 0; k < count && left.length > 0; k++) {
      const total = left.reduce((n, { score }) => n + score, 0)
      // 53 bits, as a share of the total.
      let rest = (requestSeed(seed, k, 0) / 2 ** 53) * total
      let at = left.findIndex(({ score }) => (rest -= score) < 0)
      if (at < 0) at = left.length - 1
      drawn.push(left[at]!.group)
      if (!again) left.splice(at, 1)
    }
    return drawn
  }

  save(): Uint8Array {
    const entries = this.#entries.map(({ score, group }) => ({ score, group: writeGroup(group) }))
    return Buffer.from(JSON.stringify({ format: 1, entries }))
  }

  restore(bytes: Uint8Array): void {
    const { entries } = JSON.parse(Buffer.from(bytes).toString("utf8")) as {
      readonly entries: readonly { readonly score: number; readonly group: PackedGroup }[]
    }
    this.#entries = entries.map(({ score, group }) => ({ score, group: readGroup(group) }))
  }
}
