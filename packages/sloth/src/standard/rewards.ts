import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { checkAnswer, type AnswerCheck } from "@sloth/nano"
import { defineReward, rewardLibrary } from "@sloth/rl"

/** 1 for the answer that a task of nano's `rl.jsonl` asks for, compared as its column "check" says: by the last number, by the text, or as JSON. */
export const checkedAnswer = defineReward<{ answer: string; check: AnswerCheck }>({
  name: "checked_answer",
  columns: ["answer", "check"],
  each: ({ completion, row }) => (checkAnswer(row.check, completion, row.answer) ? 1 : 0),
})

/** The plugin that provides rewards by name: those of the library that need no settings, and `checked_answer`. */
export const rewards = () =>
  definePlugin({
    name: "@sloth/rl/rewards",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { rewards: [...rewardLibrary, checkedAnswer] },
  })
