import { resolve } from "node:path"
import * as Schema from "effect/Schema"
import { field, SlothError, withDefault } from "@sloth/core"
import type { MethodEvaluation } from "@sloth/sloth"
import { defineCommand, type CommandInput } from "../command.ts"
import { errorText } from "../errors.ts"
import { rowFields } from "../row-flags.ts"
import { adapterField, jsonField, modelField } from "../session-flags.ts"
import { withSession, type Session } from "../session.ts"
import { runFields } from "../train-request.ts"
import { count, table } from "../terminal/text.ts"

const options = Schema.Struct({
  model: modelField,
  data: field.text({ description: "File of rows; an environment may bring its own." }).pipe(Schema.optionalKey),
  adapter: adapterField.pipe(Schema.optionalKey),
  ...rowFields,
  method: field
    .text({
      description:
        'Evaluate by a training method instead: "dpo", "kto", "orpo", "reward" and the like on their rows (accuracy, margins), "grpo" and the like by rewards of sampled completions. Its settings are flags too; those of a run of that method are taken from the run.',
    })
    .pipe(Schema.optionalKey),
  reward: runFields.reward,
  environment: runFields.environment,
  samples: field
    .int({ description: "With a method that samples: completions of each prompt; 4 when absent.", min: 1 })
    .pipe(Schema.optionalKey),
  seed: field.int({ description: "Seed of sampling; 0 when absent.", min: 0 }).pipe(Schema.optionalKey),
  write: field
    .text({ description: "File to write sampled completions to, one a line, with what each reward gave." })
    .pipe(Schema.optionalKey),
  json: jsonField.pipe(withDefault(false)),
})

/** Figures of a method in the order in which a person reads them: those named here first, then the others. */
const FIRST: readonly string[] = [
  "reward",
  "reward_error",
  "reward_std",
  "reward_best",
  "rewards/accuracies",
  "steps/accuracies",
  "rewards/margins",
]

const WORDS: Readonly<Record<string, string>> = {
  reward: "reward, mean",
  reward_error: "reward, standard error over prompts",
  reward_std: "reward, deviation over completions",
  reward_best: "reward, mean of the best of each prompt",
  "rewards/accuracies": "accuracy (chosen over rejected)",
  "rewards/margins": "margin (chosen - rejected)",
  "steps/accuracies": "accuracy of steps",
}

const printMethod = (input: CommandInput<typeof options.Type>, result: MethodEvaluation): void => {
  const { terminal } = input
  const { method, loss, rows, metrics, seconds } = result
  if (input.options.json) {
    terminal.print(JSON.stringify({ method, ...(loss === undefined ? {} : { loss }), rows, metrics, seconds }))
    return
  }
  const places = (key: string): number => (FIRST.includes(key) ? FIRST.indexOf(key) : FIRST.length)
  const lines = Object.entries(metrics).toSorted(([a], [b]) => places(a) - places(b))
  if (loss !== undefined) terminal.print(`loss  ${loss.toFixed(4)} (${method})`)
  for (const line of table(
    ["figure", "value"],
    lines.map(([key, value]) => [WORDS[key] ?? key, key === "scored" ? count(value) : value.toFixed(4)]),
  ))
    terminal.print(line)
  terminal.print(`rows  ${count(rows)}, ${seconds.toFixed(1)} s`)
}

/** Refuses flags that would do nothing. */
const refuseIdle = ({ method, mask, data, reward, environment, samples, seed, write }: typeof options.Type): void => {
  const fault = (what: string, next: string): SlothError => new SlothError("SLOTH_CLI_USAGE", { what, next })
  if (method !== undefined) {
    if (mask !== undefined) throw fault("--mask means nothing with --method.", "Leave it out.")
    return
  }
  const idle = Object.entries({ reward, environment, samples, seed, write }).find(([, value]) => value !== undefined)
  if (idle !== undefined)
    throw fault(`--${idle[0]} means nothing without a method.`, "Add --method grpo, or the method that you mean.")
  if (data === undefined) throw fault("--data is missing.", "Name a file of rows. See: sloth eval --help")
}

const evaluateMethod = (
  { sloth }: Session,
  input: CommandInput<typeof options.Type>,
  method: string,
): Promise<MethodEvaluation> => {
  const { model, data, adapter, maxLength, reward, environment, samples, seed, write, json } = input.options
  return sloth.evaluateMethod({
    model,
    method,
    onStuck: (error) => errorText(error, input.terminal, json),
    ...(samples === undefined ? {} : { samples }),
    ...(seed === undefined ? {} : { seed }),
    ...(data === undefined ? {} : { rows: resolve(input.cwd, data) }),
    ...(adapter === undefined ? {} : { adapter }),
    ...(maxLength === undefined ? {} : { maxLength }),
    ...(reward === undefined ? {} : { rewards: reward }),
    ...(environment === undefined ? {} : { environment }),
    ...(Object.keys(input.environmentSettings).length === 0 ? {} : { environmentSettings: input.environmentSettings }),
    ...(Object.keys(input.methodSettings).length === 0 ? {} : { settings: input.methodSettings }),
    ...(write === undefined ? {} : { write: resolve(input.cwd, write) }),
  })
}

/** `sloth eval`. */
export const command = defineCommand({
  name: "eval",
  summary: "Print loss and perplexity of a model on a data file, or its figures by a method.",
  description:
    "Evaluates a model on a file: the mean loss over all scored tokens, in nats, and its exponential, the perplexity. With --method it evaluates as that method would and trains nothing: pairs by accuracy and margin, ratings, reward models, or prompts by the rewards of sampled completions, with their spread.",
  session: true,
  aliases: { model: "m", data: "d" },
  options,
  takesMethod: true,
  examples: [
    {
      command: "sloth eval --model nano --data test.jsonl",
      description: "how well the embedded model knows these answers",
    },
    { command: "sloth eval --model runs/mine --data test.jsonl --json", description: "for a script" },
    {
      command: "sloth eval --method dpo --model runs/preferred --data held-out.jsonl",
      description: "how often the run prefers the right completion",
    },
    {
      command: "sloth eval --method grpo --model runs/mine --data test.jsonl --reward ./reward.ts --samples 8",
      description: "what its completions earn, eight of each prompt",
    },
  ],
  run: async (input) => {
    refuseIdle(input.options)
    await withSession(input, async (session) => {
      const { model, data, adapter, mask, maxLength, method, json } = input.options
      if (method !== undefined) {
        printMethod(input, await evaluateMethod(session, input, method))
        return
      }
      const result = await session.sloth.evaluate({
        model,
        rows: resolve(input.cwd, data!),
        ...(adapter === undefined ? {} : { adapter }),
        ...(mask === undefined ? {} : { mask }),
        ...(maxLength === undefined ? {} : { maxLength }),
      })
      const { loss, perplexity, rows, tokens, scoredTokens, seconds } = result
      if (json) input.terminal.print(JSON.stringify({ loss, perplexity, rows, tokens, scoredTokens, seconds }))
      else {
        input.terminal.print(`loss        ${loss.toFixed(4)} nats a token`)
        if (perplexity !== undefined) input.terminal.print(`perplexity  ${perplexity.toFixed(3)}`)
        input.terminal.print(
          `rows        ${count(rows)}, ${count(scoredTokens)} of ${count(tokens)} tokens scored, ${(tokens / seconds).toFixed(0)} tokens/s`,
        )
      }
    })
  },
})
