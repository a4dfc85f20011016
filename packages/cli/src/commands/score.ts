import { resolve } from "node:path"
import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { defineCommand } from "../command.ts"
import { rowFields } from "../row-flags.ts"
import { adapterField, jsonField, modelField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import { count } from "../terminal/text.ts"

/** `sloth score`. */
export const command = defineCommand({
  name: "score",
  summary: "Print the log-probability of every token of some rows.",
  description:
    'Scores rows: conversations, {"text": ...}, {"prompt": ..., "completion": ...} or {"tokens": [...], "mask": [...]}. With --json one object a line: tokens, and log-probs in nats, null where a token is not scored.',
  session: true,
  aliases: { model: "m", input: "i" },
  options: Schema.Struct({
    model: modelField,
    input: field.text({ description: "File of rows: .jsonl, .json, .txt, .md, .csv." }),
    adapter: adapterField.pipe(Schema.optionalKey),
    ...rowFields,
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    {
      command: "sloth score --model nano --input rows.jsonl",
      description: "one line a row: tokens, mean log-prob, perplexity",
    },
    { command: "sloth score --model runs/mine --input rows.jsonl --json", description: "every token, for a script" },
    { command: "sloth score --model nano --input chats.jsonl --mask all --json", description: "score questions too" },
  ],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const { model, input: file, adapter, mask, maxLength, json } = input.options
      const scored = await sloth.score({
        model,
        rows: resolve(input.cwd, file),
        ...(adapter === undefined ? {} : { adapter }),
        ...(mask === undefined ? {} : { mask }),
        ...(maxLength === undefined ? {} : { maxLength }),
      })
      for (const [i, { tokens, logprobs }] of scored.entries()) {
        if (json) {
          input.terminal.print(JSON.stringify({ tokens, logprobs }))
          continue
        }
        const values = logprobs.filter((lp): lp is number => lp !== null)
        const sum = values.reduce((a, b) => a + b, 0)
        input.terminal.print(
          values.length === 0
            ? `row ${i + 1}: ${count(tokens.length)} tokens, none scored`
            : `row ${i + 1}: ${count(tokens.length)} tokens, ${count(values.length)} scored, sum ${sum.toFixed(4)} nats, mean ${(sum / values.length).toFixed(4)}, perplexity ${Math.exp(-sum / values.length).toFixed(3)}`,
        )
      }
    }),
})
