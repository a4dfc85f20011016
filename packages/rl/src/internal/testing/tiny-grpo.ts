import type { Tokenizer } from "@sloth/model"
import { defineReward } from "../../rewards/define-reward.ts"
import { letters } from "../../../../infer/testing/letters.ts"
import { tinyFiles } from "../../../../train/src/internal/testing/tiny.ts"

const tokenizer: Tokenizer = {
  ...letters,
  fingerprint: "letters",
  decode: (ids) => ids.map((id) => `<${id}>`).join(""),
}

/** A tiny Llama with a tokenizer of letters. */
export const tinyModel = () => Object.assign(tinyFiles("untied"), { tokenizer })

/** Another tiny Llama with the same tokens. */
export const tinyTeacher = () => Object.assign(tinyFiles("tied"), { tokenizer })

/** Prompts of several lengths, as token ids. */
export const tinyPrompts = Array.from({ length: 10 }, (_, row) => ({
  tokens: Array.from({ length: 3 + ((5 * row) % 9) }, (_, t) => 1 + ((7 * row + 11 * t) % 120)),
  prompt: `prompt ${row}`,
  columns: { prompt: `prompt ${row}`, want: row % 3 },
  row,
}))

/** Share of even tokens: something that differs between completions and can be learnt. */
export const evenTokens = defineReward<{ want: number }>({
  name: "even",
  columns: ["want"],
  each: ({ completionTokens }) => completionTokens.filter((id) => id % 2 === 0).length / completionTokens.length,
})

/** A second reward, with a score for every other row only. */
export const shortness = defineReward<{ want: number }>({
  name: "short",
  weight: 0.5,
  score: (samples) =>
    samples.map(({ completionTokens, row }) => (row.want === 0 ? null : -completionTokens.length / 10)),
})

/** The prompts with answers. */
export const tinyExamples = tinyPrompts.map(({ tokens, row }) => ({
  tokens: Int32Array.from([
    ...tokens,
    ...Array.from({ length: 3 + (row % 4) }, (_, t) => 2 + ((13 * row + 7 * t) % 100)),
  ]),
  mask: Uint8Array.from({ length: tokens.length + 3 + (row % 4) }, (_, t) => (t < tokens.length ? 0 : 1)),
  row,
}))
