import { appendFileSync, existsSync } from "node:fs"
import { resolve } from "node:path"
import { createInterface } from "node:readline"
import * as Schema from "effect/Schema"
import { field, fileError, SlothError, withDefault } from "@sloth/core"
import type { Completion } from "@sloth/infer"
import type { Chat } from "@sloth/sloth"
import { defineCommand } from "../command.ts"
import { engineFields, engineWords, samplingFields } from "../sampling-flags.ts"
import { adapterField, modelField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import { SideBySide } from "../terminal/side-by-side.ts"
import type { Terminal } from "../terminal/terminal.ts"

const HELP = [
  "/help          this list",
  "/reset         forget the conversation",
  "/save [file]   add the conversation to a .jsonl file that can be trained on",
  "/quit          leave (also Ctrl-D)",
]

/** Chats of one model, or of the base and the tuned one side by side. */
interface Voices {
  readonly base: Chat | undefined
  readonly tuned: Chat
}

const answer = async (
  chat: Chat,
  text: string,
  terminal: Terminal,
  signal: AbortSignal,
  words: (completion: Completion) => string | undefined,
): Promise<void> => {
  const stream = chat.send(text, { signal })
  let next = await stream.next()
  for (; next.done !== true; next = await stream.next()) terminal.write(next.value.text)
  terminal.print()
  const said = words(next.value)
  if (said !== undefined) terminal.say(terminal.errorStyle.dim(said))
}

/** Both answer at once, token by token in turn, so that one can see them differ. */
const answerBoth = async (voices: Voices, text: string, terminal: Terminal, signal: AbortSignal): Promise<void> => {
  const view = new SideBySide(terminal, ["base", "tuned"])
  const streams = [voices.base!.send(text, { signal }), voices.tuned.send(text, { signal })]
  const open = new Set([0, 1])
  while (open.size > 0)
    for (const i of open) {
      const next = await streams[i]!.next()
      if (next.done === true) open.delete(i)
      else view.add(i, next.value.text)
    }
  view.end()
}

const save = (chat: Chat, path: string): void => {
  try {
    appendFileSync(path, `${JSON.stringify({ messages: chat.messages })}\n`)
  } catch (error) {
    throw fileError(error, path, "write")
  }
}

/** `sloth chat`. */
export const command = defineCommand({
  name: "chat",
  summary: "Talk to a model; --compare shows base and tuned side by side.",
  description:
    "A conversation in the terminal, streamed. Each turn only computes what is new. Ctrl-C stops an answer; Ctrl-D or /quit leaves. Lines can be piped in too: each is a turn.",
  session: true,
  aliases: { model: "m" },
  options: Schema.Struct({
    model: modelField,
    adapter: adapterField.pipe(Schema.optionalKey),
    compare: field
      .boolean({ description: "Answer with the base model and the tuned one side by side." })
      .pipe(withDefault(false)),
    system: field.text({ description: "System message at the start." }).pipe(Schema.optionalKey),
    ...samplingFields,
    ...engineFields,
  }),
  examples: [
    { command: "sloth chat --model nano", description: "talk to the embedded model" },
    { command: "sloth chat --model runs/mine --compare", description: "see what training changed" },
    { command: "sloth chat --model model.gguf --temperature 0.7 --top-p 0.9", description: "with some chance" },
    { command: 'echo "Who are you?" | sloth chat --model nano', description: "one turn from a script" },
  ],
  notes: ["In the chat: /help /reset /save [file] /quit."],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const { terminal } = input
      const { model, adapter, compare, ...options } = input.options
      using opened = await sloth.open(model, adapter === undefined ? {} : { adapter })
      const ownWeights = opened.source.weights !== undefined
      if (compare && opened.lora === undefined && !ownWeights)
        throw new SlothError("SLOTH_CHAT_COMPARE", {
          what: "There is nothing to compare: this model has no adapter.",
          next: "Give a run folder with --model, or an adapter with --adapter.",
        })
      using basis = compare && ownWeights ? await sloth.open(model, { baseOnly: true }) : undefined
      using tuned = await sloth.chat({ ...options, model: opened })
      using base = compare
        ? await sloth.chat({ ...options, model: basis ?? opened, ...(basis === undefined ? { adapters: false } : {}) })
        : undefined
      // Who asks for a special engine sees what it does.
      const words = (completion: Completion): string | undefined =>
        options.kvCache === undefined && options.speculate === undefined
          ? undefined
          : engineWords(completion, options.kvCache)
      const voices: Voices = { base, tuned }
      const interactive = process.stdin.isTTY === true
      const { cyan, dim } = terminal.style
      if (interactive) terminal.print(dim(`${opened.files.name}; /help for commands`))
      const lines = createInterface({
        input: process.stdin,
        output: process.stdout,
        terminal: interactive,
        prompt: cyan("› "),
      })
      let current: AbortController | undefined
      lines.on("SIGINT", () => {
        if (current === undefined) lines.close()
        else current.abort()
      })
      if (interactive) lines.prompt()
      for await (const raw of lines) {
        const line = raw.trim()
        const [word, ...rest] = line.split(/\s+/)
        if (word === "/quit" || word === "/exit") break
        else if (word === "/help") for (const text of HELP) terminal.print(dim(text))
        else if (word === "/reset") {
          tuned.reset()
          base?.reset()
          terminal.print(dim("forgotten"))
        } else if (word === "/save") {
          if (tuned.messages.length === 0) {
            terminal.print(dim("There is nothing to save yet."))
            if (interactive) lines.prompt()
            continue
          }
          const path = resolve(input.cwd, rest.join(" ") || "chat.jsonl")
          const there = existsSync(path)
          save(tuned, path)
          terminal.print(dim(`${there ? "added to" : "saved in"} ${path}`))
        } else if (word?.startsWith("/") === true)
          terminal.print(dim(`There is no ${word}. /help lists what there is.`))
        else if (line !== "") {
          current = new AbortController()
          try {
            if (base === undefined) await answer(tuned, line, terminal, current.signal, words)
            else await answerBoth(voices, line, terminal, current.signal)
          } finally {
            current = undefined
          }
        }
        if (interactive) lines.prompt()
      }
      lines.close()
    }),
})
