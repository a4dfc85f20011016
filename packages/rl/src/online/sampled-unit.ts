import { SlothError } from "@sloth/core"
import { completionsUnit, type CompletionsUnit } from "../preference/completions-unit.ts"

/** A completion that was sampled and scored. Arrays have an entry a token of the completion. */
export interface SampledCompletion {
  readonly tokens: ArrayLike<number>
  /** Log-probs when the update began, nats; absent in the first update after sampling with the training weights. */
  readonly old?: Float64Array
  /** Log-probs with which another engine sampled. */
  readonly sampling?: Float64Array
  /** 0 for tokens that an environment wrote, or that must not count. */
  readonly mask?: Uint8Array
  readonly advantage: number | Float64Array
  /** What the critic said before each token when the update began, where there is one. */
  readonly value?: Float64Array
  /** What it should have said. */
  readonly returns?: Float64Array
}

/** Sampled completions of one prompt as one forest. */
export interface SampledUnit extends CompletionsUnit {
  readonly samples: readonly SampledCompletion[]
  /** Tokens that count in an average step of the rollout it belongs to; dapo, cispo and vespo divide by them. */
  readonly stepTokens?: number
}

/**
 * Puts the completions of a prompt into units that share it, as many in each as `tokenBudget` has room for. Order stays.
 * Errors: SLOTH_RL_SAMPLE for an empty prompt or completion, or arrays of the wrong length.
 */
export const sampledUnits = (
  prompt: ArrayLike<number>,
  samples: readonly SampledCompletion[],
  row: number,
  tokenBudget = Number.POSITIVE_INFINITY,
): SampledUnit[] => {
  const groups: SampledCompletion[][] = []
  let used = 0
  for (const [i, sample] of samples.entries()) {
    check(prompt, sample, row, i)
    const size = sample.tokens.length - 1
    if (groups.length === 0 || used + size > tokenBudget) {
      groups.push([])
      used = prompt.length
    }
    groups.at(-1)!.push(sample)
    used += size
  }
  return groups.map((group) => ({
    ...completionsUnit(
      group.map(({ tokens }) => ({
        tokens: Int32Array.from([...Array.from(prompt), ...Array.from(tokens)]),
        scored: Uint8Array.from({ length: prompt.length + tokens.length }, (_, t) => (t < prompt.length ? 0 : 1)),
      })),
      row,
    ),
    samples: group,
  }))
}

const check = (prompt: ArrayLike<number>, sample: SampledCompletion, row: number, index: number): void => {
  const { length } = sample.tokens
  const lengths = {
    old: sample.old,
    sampling: sample.sampling,
    mask: sample.mask,
    value: sample.value,
    returns: sample.returns,
  } as const
  const wrong = Object.entries(lengths).find(([, values]) => values !== undefined && values.length !== length)
  const advantages = typeof sample.advantage === "number" ? length : sample.advantage.length
  if (prompt.length > 0 && length > 0 && wrong === undefined && advantages === length) return
  throw new SlothError("SLOTH_RL_SAMPLE", {
    what:
      prompt.length === 0
        ? `The prompt of row ${row} has no token.`
        : length === 0
          ? `Completion ${index} of row ${row} has no token.`
          : `Completion ${index} of row ${row} has ${length} tokens, but ${wrong?.[1]?.length ?? advantages} entries in ${wrong?.[0] ?? "advantage"}.`,
    next: "Give at least one token, and one entry a token.",
    fields: { row, completion: index, tokens: length },
  })
}
