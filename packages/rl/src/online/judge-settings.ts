import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { settingsError } from "../internal/settings.ts"
import { endpointJudge } from "../rewards/judge-model.ts"
import { pairJudge, type PairJudge } from "../rewards/pair-judge.ts"

/** Settings that name a judge of pairs in the place of rewards. */
export const judgeFields = {
  judge: field
    .text({
      description:
        "A model that says which of the two completions is the better one, in the place of rewards: the address of an endpoint that speaks OpenAI's chat completions, such as http://localhost:8000/v1.",
    })
    .pipe(Schema.optionalKey),
  judgeModel: field.text({ description: "Name of the model at the endpoint of the judge." }).pipe(Schema.optionalKey),
  judgeRubric: field
    .text({ description: "What makes an answer the better one, in words; helpful, true and to the point when absent." })
    .pipe(Schema.optionalKey),
  judgeOrder: field
    .choice(["shuffled", "both"], {
      description:
        "A judge may like what it reads first: ask once in an order drawn for each pair, or in both orders, with a tie where they disagree.",
    })
    .pipe(withDefault("shuffled")),
} as const

/** The settings of {@link judgeFields}, decoded. */
export interface JudgeSettings {
  readonly judge?: string
  readonly judgeModel?: string
  readonly judgeRubric?: string
  readonly judgeOrder?: "shuffled" | "both"
}

const RUBRIC = "The better answer does what the task asks, is true, and says no more than it must."

/** The judge that settings name, if any; its orders follow from the seed. Errors: SLOTH_RL_SETTINGS, SLOTH_JUDGE_OPTION. */
export const judgeOf = (method: string, settings: JudgeSettings, seed: number): PairJudge | undefined => {
  const { judge, judgeModel, judgeRubric, judgeOrder } = settings
  if (judge === undefined) {
    if (judgeModel !== undefined || judgeRubric !== undefined || judgeOrder === "both")
      throw settingsError(method, "there are settings of a judge, and no judge.", "Give its address as `judge`.")
    return undefined
  }
  if (judgeModel === undefined)
    throw settingsError(
      method,
      "the judge has an address, and no model.",
      "Name the model at the endpoint as `judgeModel`.",
    )
  return pairJudge({
    judge: endpointJudge({ baseUrl: judge, model: judgeModel }),
    rubric: judgeRubric ?? RUBRIC,
    ...(judgeOrder === undefined ? {} : { order: judgeOrder }),
    seed,
  })
}

/** Refuses a judge beside rewards. Errors: SLOTH_RL_SETTINGS, SLOTH_JUDGE_OPTION. */
export const checkJudge = (
  method: string,
  settings: JudgeSettings,
  rewards: readonly unknown[],
): PairJudge | undefined => {
  const judge = judgeOf(method, settings, 0)
  if (judge !== undefined && rewards.length > 0)
    throw settingsError(method, "a judge takes the place of rewards, and there are some.", "Leave one of the two out.")
  return judge
}
