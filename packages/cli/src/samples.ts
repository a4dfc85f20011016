import { EventLog, runPaths } from "@sloth/core"
import { completeAll, type OpenedModel } from "@sloth/sloth"

/** One question with the answers of the base model and of the trained one. */
export interface Sample {
  readonly prompt: string
  /** Undefined where the base model is gone, as after full fine-tuning. */
  readonly before: string | undefined
  readonly after: string
}

/** Most tokens of an answer in a report. */
const MAX_TOKENS = 120

/** Answers questions with the base model under an adapter and with the adapter. */
export const answerSamples = async (
  opened: OpenedModel,
  prompts: readonly string[],
  maxTokens: number = MAX_TOKENS,
): Promise<Sample[]> => {
  const ask = (adapters: boolean) => completeAll(opened, prompts, { maxTokens, adapters })
  const before = opened.lora === undefined ? undefined : await ask(false)
  const after = await ask(true)
  return prompts.map((prompt, i) => ({ prompt, before: before?.[i]?.text, after: after[i]!.text }))
}

/** Answers questions and notes the answers in the events of the run. */
export const recordSamples = async (
  opened: OpenedModel,
  run: string,
  prompts: readonly string[],
  maxTokens: number = MAX_TOKENS,
): Promise<readonly Sample[]> => {
  const samples = await answerSamples(opened, prompts, maxTokens)
  using log = await EventLog.open(runPaths(run).events)
  const step = log.previous.findLast((event) => event.type === "step")?.step ?? 0
  for (const { prompt, before, after } of samples) {
    const time = new Date().toISOString()
    if (before !== undefined) log.append({ type: "sample", time, step: 0, phase: "before", prompt, completion: before })
    log.append({ type: "sample", time, step, phase: "after", prompt, completion: after })
  }
  return samples
}
