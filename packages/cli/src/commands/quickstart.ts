import * as Schema from "effect/Schema"
import { field, formatBytes, withDefault } from "@sloth/core"
import { nanoFiles, QUICKSTART_QUESTIONS } from "@sloth/nano"
import { completeAll, nextRunFolder } from "@sloth/sloth"
import { formatSeconds } from "@sloth/train"
import { defineCommand } from "../command.ts"
import { EXIT } from "../errors.ts"
import { exportLines, shortPath } from "../export-lines.ts"
import { interruptible } from "../interrupt.ts"
import { tellDone, tellInterrupted, TrainingClock } from "../quickstart-parts.ts"
import { writeReport } from "../report/write-report.ts"
import { quickstartRl } from "../quickstart-rl.ts"
import { recordSamples, type Sample } from "../samples.ts"
import { jsonField, modelField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import type { Terminal } from "../terminal/terminal.ts"
import { wrapText } from "../terminal/text.ts"
import { TrainingDisplay } from "../training-display.ts"

/** What the quickstart trains: tuned so that nano learns its new manner in a few seconds on two cores. */
const TRAINING = {
  batch: 8,
  maxLength: 256,
  rank: 16,
  alpha: 32,
  learningRate: 3e-3,
  schedule: "linear",
  warmupSteps: 5,
  seed: 1,
  saveEvery: 0,
} as const

/** Optimizer steps on a machine that is fast enough: once through the rows. A second time through, nano unlearns facts that are not among them. */
const STEPS = 60
/** Fewest steps to plan for: what training brings can be seen from here on. */
const LEAST_STEPS = 40
/** Seconds that training may take by the plan's forecast, and by the clock. */
const PLANNED_SECONDS = 30
const MOST_SECONDS = 38

const MAX_TOKENS = 60
const FORMATS = ["gguf-f16", "peft"] as const

const tellAnswer = (
  terminal: Terminal,
  question: string,
  answers: readonly (readonly [string, string | undefined])[],
): void => {
  const { bold, dim } = terminal.errorStyle
  terminal.say(`  ${bold(question)}`)
  for (const [name, text] of answers)
    if (text !== undefined)
      for (const [i, line] of wrapText(text.trim() || "(nothing)", terminal.width - 12).entries())
        terminal.say(`    ${dim(i === 0 ? name.padEnd(7) : "".padEnd(7))} ${line}`)
}

/** `sloth quickstart`. */
export const command = defineCommand({
  name: "quickstart",
  summary: "Train the embedded model in half a minute and see what changed.",
  description:
    "Shows all of Sloth in under a minute, without a network: plans, trains a LoRA on the embedded nano model with an embedded instruction set, shows three answers before and after, exports a GGUF file and a PEFT adapter and checks both, writes a report, and says what to try next.",
  session: true,
  options: Schema.Struct({
    model: modelField.pipe(Schema.optionalKey),
    steps: field
      .int({
        description: `Optimizer steps; as many as fit into half a minute, at most ${STEPS}, when absent.`,
        unit: "steps",
        min: 1,
      })
      .pipe(Schema.optionalKey),
    rl: field
      .boolean({
        description:
          "Show reinforcement learning instead: the model learns from rewards for its own attempts, in about a minute.",
      })
      .pipe(withDefault(false)),
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    { command: "sloth quickstart", description: "the whole way in under a minute" },
    { command: "sloth quickstart --rl", description: "GRPO on tasks whose answers can be checked" },
    { command: "sloth quickstart --steps 30 --json", description: "a shorter one, with the result as data" },
  ],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const started = performance.now()
      const { terminal } = input
      if (input.options.rl)
        return quickstartRl(sloth, terminal, {
          model: input.options.model ?? "nano",
          steps: input.options.steps,
          json: input.options.json,
        })
      const { bold, dim, green } = terminal.errorStyle
      const model = input.options.model ?? "nano"
      const data = nanoFiles().quickstart
      const display = new TrainingDisplay(terminal, { interval: 2000 })
      const interrupt = interruptible(() => display.stopping())
      try {
        const { name } = await sloth.backend()
        terminal.say(`${bold("Sloth quickstart")} ${dim(`backend ${name}`)}`)
        terminal.say()
        const base = await sloth.open(model, { signal: interrupt.signal })
        const before = await completeAll(base, QUICKSTART_QUESTIONS, {
          maxTokens: MAX_TOKENS,
          signal: interrupt.signal,
        })
        base.dispose()
        terminal.say(bold("Before"))
        for (const [i, question] of QUICKSTART_QUESTIONS.entries())
          tellAnswer(terminal, question, [["", before[i]?.text]])
        terminal.say()

        let { steps } = input.options
        if (steps === undefined) {
          const { plan } = await sloth.plan({ model, data, ...TRAINING, steps: STEPS, signal: interrupt.signal })
          const fitting = plan.time === undefined ? STEPS : Math.floor(PLANNED_SECONDS / plan.time.secondsPerStep)
          steps = Math.min(STEPS, Math.max(LEAST_STEPS, fitting))
        }
        const clock = new TrainingClock(MOST_SECONDS, input.options.steps)
        const outcome = await sloth.train({
          model,
          data,
          ...TRAINING,
          steps,
          run: nextRunFolder(sloth.paths.runs, "quickstart"),
          command: "sloth quickstart",
          measure: true,
          keepModel: true,
          signal: interrupt.signal,
          onPrepared: (run) => display.prepared(run),
          onEvent: (event) => {
            if (event.type === "plan") clock.start()
            display.event(event)
          },
          callbacks: [clock.callback],
        })
        display.end()
        using opened = outcome.opened!
        if (outcome.status === "interrupted") return tellInterrupted(terminal, outcome)
        terminal.say(`${green("✓")} trained ${outcome.steps} steps in ${formatSeconds(outcome.seconds)}`)
        terminal.say()
        terminal.say(bold("Before and after"))
        const samples: readonly Sample[] = await recordSamples(opened, outcome.run, QUICKSTART_QUESTIONS, MAX_TOKENS)
        for (const { prompt, before: was, after } of samples)
          tellAnswer(terminal, prompt, [
            ["before", was],
            ["after", after],
          ])
        terminal.say()

        terminal.say(bold("Exports"))
        const exports = []
        for (const format of FORMATS) {
          const report = await sloth.export({ model: opened, format: format as never })
          exports.push(report)
          for (const line of exportLines(report, terminal.errorStyle, opened.source.base)) terminal.say(`  ${line}`)
        }
        const report = writeReport(outcome.run)
        const seconds = (performance.now() - started) / 1000
        const run = shortPath(outcome.run)
        terminal.say()
        tellDone(terminal, { seconds, report }, [
          [`sloth chat --model ${run} --compare`, "talk to it, base and tuned side by side"],
          [`sloth generate --model ${run} --prompt "What is the capital of Spain?"`, "ask one thing"],
          ["sloth init my-model", "a project of your own, with sample data"],
          ["sloth train --model org/name --data rows.jsonl", "a real model, your data"],
        ])
        if (input.options.json)
          terminal.print(
            JSON.stringify({
              run: outcome.run,
              report,
              steps: outcome.steps,
              loss: outcome.finalLoss,
              seconds,
              samples,
              exports: exports.map(({ format, path, bytes, verification }) => ({
                format,
                path,
                bytes,
                largest: verification.largest,
              })),
            }),
          )
        else
          terminal.say(
            dim(`  ${formatBytes(exports.reduce((n, { bytes }) => n + bytes, 0))} of exports in ${run}/exports`),
          )
        return EXIT.ok
      } finally {
        display.end()
        interrupt.stop()
      }
    }),
})
