import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { defineCommand } from "../command.ts"
import { interruptible } from "../interrupt.ts"
import { engineFields, engineWords, samplingFields } from "../sampling-flags.ts"
import { adapterField, jsonField, modelField } from "../session-flags.ts"
import { withSession } from "../session.ts"

/** `sloth generate`. */
export const command = defineCommand({
  name: "generate",
  summary: "Answer one prompt.",
  description:
    "Generates one completion and prints it as it comes. The prompt is asked as a question through the model's chat template; with --raw, and for models without a template, it is a text to go on with. Greedy unless a temperature is given.",
  session: true,
  aliases: { model: "m", prompt: "p" },
  options: Schema.Struct({
    model: modelField,
    prompt: field.text({ description: "What to ask, or to go on with." }),
    adapter: adapterField.pipe(Schema.optionalKey),
    system: field.text({ description: "System message before the question." }).pipe(Schema.optionalKey),
    raw: field
      .boolean({ description: "Go on with the prompt as it is, without the chat template." })
      .pipe(withDefault(false)),
    ...samplingFields,
    ...engineFields,
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    {
      command: 'sloth generate --model nano --prompt "What does a rabbit eat?"',
      description: "ask the embedded model",
    },
    {
      command: 'sloth generate --model runs/mine --prompt "Hello" --temperature 0.7 --seed 1',
      description: "ask what a run trained, with some chance",
    },
    {
      command: 'sloth generate --model model.gguf --prompt "Once upon a time" --raw --max-tokens 100',
      description: "go on with a text",
    },
    {
      command: 'sloth generate --model model.gguf --prompt "Correct this text: ..." --speculate lookup --kv-cache f16',
      description: "faster where the answer repeats the question, with half the cache",
    },
    {
      command: 'sloth generate --model nano --prompt "Hi" --temperature 0 --json',
      description: "tokens and log-probs for a script",
    },
  ],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const { json, adapter, ...options } = input.options
      const stop = interruptible(() => undefined)
      try {
        const stream = sloth.stream({ ...options, signal: stop.signal, ...(adapter === undefined ? {} : { adapter }) })
        for (;;) {
          const next = await stream.next()
          if (next.done === true) {
            const { tokens, text, logprobs, tokensPerSecond, firstTokenSeconds, finish, speculation } = next.value
            if (json)
              input.terminal.print(
                JSON.stringify({
                  tokens,
                  text,
                  logprobs,
                  tokensPerSecond,
                  firstTokenSeconds,
                  ...(speculation === undefined ? {} : { speculation }),
                }),
              )
            else {
              input.terminal.print()
              input.terminal.say(
                input.terminal.errorStyle.dim(
                  `${tokens.length} tokens, ${tokensPerSecond.toFixed(1)} tokens/s, first after ${firstTokenSeconds.toFixed(2)} s, ended by ${finish}; ${engineWords(next.value, options.kvCache)}`,
                ),
              )
            }
            return finish === "aborted" ? 130 : 0
          }
          if (!json) input.terminal.write(next.value.text)
        }
      } finally {
        stop.stop()
      }
    }),
})
