import * as Schema from "effect/Schema"
import { field, formatBytes, withDefault } from "@sloth/core"
import { defineCommand } from "../command.ts"
import { EXIT } from "../errors.ts"
import { interruptible } from "../interrupt.ts"
import { jsonField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import { clip } from "../terminal/text.ts"

/** `sloth pull`. */
export const command = defineCommand({
  name: "pull",
  summary: "Download a model: says the size first, resumes, verifies hashes.",
  description:
    "Downloads a model of the hub into the cache: configuration, tokenizer and weights, nothing else. The size is told first; a broken download goes on where it stopped; every file is checked against the hash that the hub lists. HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured.",
  session: true,
  positionals: [
    { name: "model", description: "Hub id: org/name, org/name@revision, org/name:Q4_K_M.", required: true },
  ],
  options: Schema.Struct({
    dryRun: field.boolean({ description: "Only say what would be downloaded." }).pipe(withDefault(false)),
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    { command: "sloth pull HuggingFaceTB/SmolLM2-135M-Instruct", description: "download a model" },
    { command: "sloth pull org/name@v1.0 --dry-run", description: "how large is it?" },
    { command: "sloth pull org/name --offline", description: "is it all here?" },
  ],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const { terminal } = input
      const { dryRun, json } = input.options
      const interrupt = interruptible(() => terminal.say("Stopping; the same command goes on from here."))
      let drawn = 0
      try {
        const plan = await sloth.pull(input.positionals[0]!, {
          signal: interrupt.signal,
          onPlan: ({ files, totalBytes, missingBytes, commit, folder }) => {
            if (!json) {
              for (const { path, size } of files) terminal.say(`  ${path}  ${formatBytes(size)}`)
              terminal.say(
                `${formatBytes(totalBytes)} at ${commit.slice(0, 12)}, ${missingBytes === 0 ? "all here" : `${formatBytes(missingBytes)} to download`}`,
              )
              terminal.say(`  to ${folder}`)
            }
            return !dryRun
          },
          onProgress: ({ file, bytes, size }) => {
            const now = Date.now()
            if (!terminal.live || json || now - drawn < 200) return
            drawn = now
            terminal.sayRaw(
              `\r\u001b[K${clip(`${((100 * bytes) / size).toFixed(1)} %  ${formatBytes(bytes)} of ${formatBytes(size)}  ${file}`, terminal.width - 1)}`,
            )
          },
        })
        if (drawn > 0) terminal.sayRaw("\r\u001b[K")
        const { ref, commit, kind, folder, mainPath, totalBytes, missingBytes, files } = plan
        if (json)
          terminal.print(
            JSON.stringify({
              model: ref.name,
              commit,
              kind,
              folder,
              path: mainPath,
              totalBytes,
              missingBytes,
              files: files.map(({ path, size }) => ({ path, size })),
            }),
          )
        else if (!dryRun) terminal.print(kind === "gguf" ? mainPath : folder)
        return EXIT.ok
      } finally {
        interrupt.stop()
      }
    }),
})
