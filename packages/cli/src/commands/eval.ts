import { resolve } from "node:path"
import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { defineCommand } from "../command.ts"
import { rowFields } from "../row-flags.ts"
import { adapterField, jsonField, modelField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import { count } from "../terminal/text.ts"

/** `sloth eval`. */
export const command = defineCommand({
  name: "eval",
  summary: "Print loss and perplexity of a model on a data file.",
  description:
    "Evaluates a model on a file: the mean loss over all scored tokens, in nats, and its exponential, the perplexity.",
  session: true,
  aliases: { model: "m", data: "d" },
  options: Schema.Struct({
    model: modelField,
    data: field.text({ description: "File of rows." }),
    adapter: adapterField.pipe(Schema.optionalKey),
    ...rowFields,
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    {
      command: "sloth eval --model nano --data test.jsonl",
      description: "how well the embedded model knows these answers",
    },
    { command: "sloth eval --model runs/mine --data test.jsonl --json", description: "for a script" },
  ],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const { model, data, adapter, mask, maxLength, json } = input.options
      const result = await sloth.evaluate({
        model,
        rows: resolve(input.cwd, data),
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
    }),
})
