import * as Schema from "effect/Schema"
import { withDefault } from "@sloth/core"
import { defineCommand } from "../command.ts"
import { jsonField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import { runFields, trainInputs, trainSettings } from "../train-request.ts"
import { dataLines, planLines } from "../training-display.ts"

/** `sloth plan`. */
export const command = defineCommand({
  name: "plan",
  summary: "Say all that training would do: memory, disk, time; do nothing.",
  description:
    "Takes the same flags as train, opens the model, prepares the data, measures the machine for a moment, and prints the plan: what is trained, in what micro-batches, with how much memory, disk and time, and one example with its scored tokens highlighted.",
  session: true,
  aliases: { model: "m", data: "d" },
  options: Schema.Struct({ ...runFields, json: jsonField.pipe(withDefault(false)) }),
  settings: trainSettings,
  takesMethod: true,
  examples: [
    {
      command: "sloth plan --model nano --data rows.jsonl",
      description: "what training the embedded model would take",
    },
    {
      command: "sloth plan --model model.gguf --data rows.jsonl --batch 16 --max-length 2048 --json",
      description: "the same as data",
    },
  ],
  run: (input) =>
    withSession(input, async (session) => {
      const { json, ...flags } = input.options
      const { config, ...inputs } = trainInputs(session, input.cwd, flags, input.settings, input)
      const { plan, ...prepared } = await session.sloth.plan({ ...config, ...inputs, method: inputs.method as never })
      const { terminal } = input
      if (json) terminal.print(JSON.stringify(plan))
      else {
        for (const line of dataLines(prepared, terminal)) terminal.print(line)
        terminal.print()
        terminal.print(terminal.style.bold("Plan"))
        for (const line of planLines(plan, terminal.style, terminal.width)) terminal.print(line)
      }
    }),
})
