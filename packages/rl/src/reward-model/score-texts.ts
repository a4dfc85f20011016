import type { RewardMessage } from "@sloth/core"
import { prepareExamples, type DataRow } from "@sloth/data"
import type { CausalLM, Tokenizer } from "@sloth/model"
import { stepTokens } from "../data/steps.ts"
import { sigmoid } from "../internal/math.ts"
import { buildMicroBatch, hostOutputs, splitUnits, type TrainingUnit } from "@sloth/train"

/** A model with a score head and what its texts are made by; an opened model of `@sloth/sloth` is one. */
export interface ScoringModel {
  readonly model: CausalLM
  readonly tokenizer: Tokenizer
}

/** A prompt and its answer. */
export interface JudgedText {
  readonly prompt: string | readonly RewardMessage[]
  readonly completion: string
}

/** Options of {@link scoreTexts}. */
export interface ScoreTextsOptions {
  /** Chat template source; the tokenizer's own when absent. */
  readonly template?: string
  /** Most tokens of a text: of a longer one the beginning is left out, because the end is where it is judged. The model's own limit when absent. */
  readonly maxLength?: number
  /** Most tokens in a pass; 2048 when absent. */
  readonly tokenBudget?: number
  readonly signal?: AbortSignal
}

/**
 * Scores answers with a reward model: each conversation is rendered by the chat template (a text with its eos), and the score head read at its last token, as in training.
 * Errors: SLOTH_MODEL_NO_SCORE, SLOTH_TEMPLATE_MISSING.
 */
export const scoreTexts = async (
  { model, tokenizer }: ScoringModel,
  texts: readonly JudgedText[],
  options: ScoreTextsOptions = {},
): Promise<Float32Array> => {
  const { template, maxLength = model.config.maxPositions, tokenBudget = 2048, signal } = options
  const rows = texts.map(({ prompt, completion }, index): DataRow => {
    const origin = { index }
    return typeof prompt === "string"
      ? { kind: "completion", prompt, completion, origin }
      : {
          kind: "conversation",
          messages: [...prompt, { role: "assistant", content: completion }].map((message) => ({ ...message })),
          origin,
        }
  })
  const { examples } = await prepareExamples(rows, { tokenizer, template, signal, mask: "all" })
  const units = examples.map(({ tokens, row }): TrainingUnit => {
    const own = tokens.length > maxLength ? tokens.subarray(tokens.length - maxLength) : tokens
    return {
      tokens: own,
      segments: [{ length: own.length, parent: null }],
      scoredRows: Int32Array.of(own.length - 1),
      targets: new Int32Array(1),
      sourceTokens: own.length,
      row,
    }
  })
  const scored = await readHead(model, units, tokenBudget, signal)
  const out = new Float32Array(texts.length).fill(Number.NaN)
  for (const [i, [value]] of scored.entries()) out[units[i]!.row] = value!
  return out
}

/** What the score head says at the scored positions of each unit. */
const readHead = async (
  model: CausalLM,
  units: readonly TrainingUnit[],
  tokenBudget: number,
  signal: AbortSignal | undefined,
): Promise<Float32Array[]> => {
  const out: Float32Array[] = []
  for (const indices of splitUnits(units, { tokenBudget, packing: true })) {
    signal?.throwIfAborted()
    const batch = buildMicroBatch(indices.map((i) => units[i]!))
    const { values } = await hostOutputs(model, batch, { logprobs: false, values: true })
    for (const [k, i] of indices.entries()) out[i] = values!.slice(batch.starts[k]!, batch.starts[k + 1]!)
  }
  return out
}

/** A solution and its steps. */
export interface JudgedSteps {
  readonly prompt: string
  readonly steps: readonly string[]
}

/**
 * Says of every step of solutions how likely it is right, 0 to 1, with a process reward model, read after each step as in training. Steps beyond the model's context have
 * no probability: the list is shorter then. Errors: SLOTH_MODEL_NO_SCORE.
 */
export const scoreSteps = async (
  { model, tokenizer }: ScoringModel,
  solutions: readonly JudgedSteps[],
  options: Omit<ScoreTextsOptions, "template"> = {},
): Promise<readonly Float64Array[]> => {
  const { maxLength = model.config.maxPositions, tokenBudget = 2048, signal } = options
  const made = solutions.map(({ prompt, steps }) => stepTokens(tokenizer, prompt, steps, maxLength))
  const units = made.flatMap(({ ids, ends }, row): TrainingUnit[] =>
    ends.length === 0
      ? []
      : [
          {
            tokens: Int32Array.from(ids),
            segments: [{ length: ids.length, parent: null }],
            scoredRows: Int32Array.from(ends),
            targets: new Int32Array(ends.length),
            sourceTokens: ids.length,
            row,
          },
        ],
  )
  const out: Float64Array[] = solutions.map(() => new Float64Array(0))
  const scored = await readHead(model, units, tokenBudget, signal)
  for (const [i, values] of scored.entries()) out[units[i]!.row] = Float64Array.from(values, sigmoid)
  return out
}
