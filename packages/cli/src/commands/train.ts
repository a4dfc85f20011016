import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import { formatSeconds, resumeCommandOf } from "@sloth/train"
import { readRunRecord, type TrainOutcome } from "@sloth/sloth"
import { defineCommand } from "../command.ts"
import { errorText, EXIT } from "../errors.ts"
import { shortPath } from "../export-lines.ts"
import { interruptible } from "../interrupt.ts"
import { writeReport } from "../report/write-report.ts"
import { recordSamples } from "../samples.ts"
import { jsonField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import type { Terminal } from "../terminal/terminal.ts"
import { fixed } from "../terminal/text.ts"
import { commandLineRecord, resumedFlags, resumedRun } from "../resumed-run.ts"
import { refuseWords, runFields, trainInputs, trainSettings } from "../train-request.ts"
import { TrainingDisplay } from "../training-display.ts"

const summary = (outcome: TrainOutcome): Record<string, unknown> => ({
  status: outcome.status,
  run: outcome.run,
  steps: outcome.steps,
  loss: Number.isFinite(outcome.finalLoss) ? outcome.finalLoss : null,
  evaluationLoss: outcome.evaluation?.loss ?? null,
  adapter: outcome.adapter ?? null,
  weights: outcome.weights ?? null,
  checkpoint: outcome.checkpoint ?? null,
  tokens: outcome.tokens,
  seconds: outcome.seconds,
  resume: outcome.resumeCommand ?? null,
})

const tellEnd = (
  outcome: TrainOutcome,
  report: string,
  reward: TrainingDisplay["reward"],
  terminal: Terminal,
): void => {
  const { green, yellow, bold, dim } = terminal.errorStyle
  const run = shortPath(outcome.run)
  if (outcome.status === "interrupted") {
    terminal.say(
      outcome.steps === 0
        ? `${yellow("Interrupted")} before the first of ${outcome.plan.steps} steps was done; there was nothing to save.`
        : `${yellow("Interrupted")} at step ${outcome.steps} of ${outcome.plan.steps}; everything is saved.`,
    )
    terminal.say(`  continue: ${bold(outcome.resumeCommand ?? "")}`)
    return
  }
  // The loss of a method with rewards says nothing about how good the model is.
  const figure =
    reward === undefined
      ? `loss ${fixed(outcome.finalLoss, 4)}`
      : `mean reward ${fixed(reward.last, 3)} (${fixed(reward.first, 3)} at first)`
  terminal.say(
    `${green("✓")} ${outcome.status === "stopped" ? "Stopped" : "Trained"} ${outcome.steps} steps in ${formatSeconds(outcome.seconds)}, ${figure}`,
  )
  const result = outcome.adapter ?? outcome.weights
  if (result !== undefined) terminal.say(`  ${dim("result:")} ${shortPath(result)}`)
  terminal.say(`  ${dim("report:")} ${shortPath(report)}`)
  if (outcome.plan.method === "reward" || outcome.plan.method === "prm") {
    terminal.say(`  ${dim("next:")}   docs/rl.md, "Reward models", says how it scores completions`)
    return
  }
  terminal.say(`  ${dim("next:")}   sloth chat --model ${run} --compare`)
  if (reward !== undefined) terminal.say(`          sloth samples ${run} --sort reward`)
  terminal.say(`          sloth export --model ${run} --format gguf-q8_0`)
}

/** `sloth train`. */
export const command = defineCommand({
  name: "train",
  summary: "Fine-tune a model on a data file.",
  description:
    "Prints the plan, then trains: a LoRA unless --full. Everything goes into a run folder: settings, events, checkpoints, the final adapter in PEFT form, a report. Settings come from the flags, then from the train section of sloth.config.*, then from their defaults. Ctrl-C finishes the step, saves, and prints the command that goes on.",
  session: true,
  aliases: { model: "m", data: "d" },
  optionalValues: { resume: "" },
  positionals: [{ name: "run", description: "With --resume: the run folder to go on with." }],
  options: Schema.Struct({
    ...runFields,
    resume: field
      .text({ description: "Go on with a run from its last checkpoint: that of --run, or the newest one." })
      .pipe(Schema.optionalKey),
    tracker: field
      .list(Schema.String, { description: "Tracker that follows the run; may be repeated." })
      .pipe(Schema.optionalKey),
    sample: field
      .list(Schema.String, {
        description: "Question that is answered before and after, for the report; may be repeated.",
      })
      .pipe(Schema.optionalKey),
    json: jsonField.pipe(withDefault(false)),
  }),
  settings: trainSettings,
  takesMethod: true,
  examples: [
    { command: "sloth train --model nano --data rows.jsonl --steps 60", description: "a LoRA on the embedded model" },
    {
      command: "sloth train --model org/name --data rows.jsonl --rank 32 --learning-rate 1e-4 --run runs/mine",
      description: "a model of the hub, into a named run",
    },
    {
      command: "sloth train --model model.gguf --data rows.csv --eval-fraction 0.05 --eval-every 50",
      description: "train on a GGUF file as it is, and hold rows out",
    },
    { command: "sloth train --resume --run runs/mine", description: "go on after Ctrl-C or a crash" },
  ],
  notes: ["Exit status: 0 trained, 1 failed, 2 wrong flags or settings, 130 interrupted after a clean save."],
  run: async (input) => {
    const { terminal, cwd } = input
    const { json, resume, tracker, sample, ...flags } = input.options
    if (resume === undefined) refuseWords(input.positionals)
    const named = [resume, input.positionals[0], input.settings["run"] as string | undefined]
    const run = resume === undefined ? undefined : await resumedRun(input.session, cwd, named)
    const resumed = run === undefined ? undefined : resumedFlags(input.session, readRunRecord(run), cwd)
    const flagged = resumed?.session ?? input.session
    const samples = sample ?? resumed?.samples
    return withSession({ ...input, session: flagged }, async (session) => {
      const { config, ...inputs } = trainInputs(session, cwd, flags, input.settings, input, resume !== undefined)
      const display = new TrainingDisplay(terminal, { resumes: run !== undefined })
      const place = config.run ?? run
      const interrupt = interruptible(
        () => display.stopping(),
        () => display.leaving(place === undefined ? "sloth train --resume" : resumeCommandOf(place)),
      )
      try {
        const outcome = await session.sloth.train({
          ...config,
          ...inputs,
          method: inputs.method as never,
          ...(run === undefined ? {} : { resume: true, run }),
          ...(tracker === undefined ? {} : { trackers: tracker }),
          command: ["sloth", ...process.argv.slice(2)].join(" "),
          commandLine: commandLineRecord(flagged, cwd, session.configFile ?? resumed?.config, samples),
          signal: interrupt.signal,
          keepModel: samples !== undefined,
          onPrepared: (prepared) => display.prepared(prepared),
          onEvent: (event) => display.event(event),
          onStuck: (error) => errorText(error, terminal, json),
        })
        // It is all saved: Ctrl-C now leaves what is only told or written for people.
        interrupt.stop()
        display.end()
        if (outcome.opened !== undefined && samples !== undefined) {
          using opened = outcome.opened
          await recordSamples(opened, outcome.run, samples)
        }
        const report = writeReport(outcome.run)
        tellEnd(outcome, report, display.reward, terminal)
        if (json) terminal.print(JSON.stringify(summary(outcome)))
        return outcome.status === "interrupted" ? EXIT.interrupted : EXIT.ok
      } finally {
        display.end()
        interrupt.stop()
      }
    })
  },
})
