import { standardDeviation, sum } from "../internal/math.ts"
import { maskedCount } from "./importance.ts"
import { replayScore, type ReplayBuffer } from "./replay-buffer.ts"
import type { StoredRollout } from "./stored-rollout.ts"

/**
 * Keeps the groups of a rollout that teach something, and puts earlier ones in the place of those that teach nothing. While nothing is kept yet, the rollout stays as it is.
 * Source: TRL 1.13, `GRPOWithReplayBufferTrainer`.
 */
export const replayGroups = (
  buffer: ReplayBuffer,
  made: {
    readonly rollout: StoredRollout
    readonly rewards: Float64Array
    readonly flatGroups: readonly number[]
  },
  seed: number,
): { readonly rollout: StoredRollout; readonly metrics: Readonly<Record<string, number>> } => {
  const { rollout, rewards, flatGroups } = made
  const flat = new Set(flatGroups)
  let [at, g] = [0, 0]
  for (const group of rollout.slices.flat()) {
    const own = Array.from(rewards.subarray(at, at + group.samples.length)).filter((x) => !Number.isNaN(x))
    const advantages = group.samples.map(({ advantage }) =>
      typeof advantage === "number" ? advantage : sum(advantage) / Math.max(1, advantage.length),
    )
    if (!flat.has(g)) buffer.add(replayScore(advantages, standardDeviation(own)), group)
    at += group.samples.length
    g++
  }
  const drawn = buffer.draw(flat.size, seed)
  const figures = (replayed: number) => ({ "groups/replayed": replayed, "groups/kept": buffer.length })
  if (drawn.length === 0) return { rollout, metrics: figures(0) }
  let [next, place] = [0, 0]
  const slices = rollout.slices.map((groups) =>
    groups.map((group) => (flat.has(place++) ? (drawn[next++] ?? group) : group)),
  )
  // What the losses of whole rollouts divide by is that of the groups that are trained on.
  const tokens = slices
    .flat()
    .flatMap(({ samples }) => samples)
    .reduce((n, { mask, tokens: { length } }) => n + maskedCount(mask, length), 0)
  return { rollout: { ...rollout, slices, stepTokens: tokens / slices.length }, metrics: figures(drawn.length) }
}
