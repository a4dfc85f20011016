import { readFileSync } from "node:fs"
import { checkAnswer, nanoFiles, type AnswerCheck } from "@sloth/nano"
import { completeAll, nextRunFolder, type OpenedModel, type Sloth } from "@sloth/sloth"
import { formatSeconds } from "@sloth/train"
import { EXIT } from "./errors.ts"
import { shortPath } from "./export-lines.ts"
import { interruptible } from "./interrupt.ts"
import { tellDone, tellInterrupted, TrainingClock } from "./quickstart-parts.ts"
import { writeReport } from "./report/write-report.ts"
import { sparkline } from "./terminal/sparkline.ts"
import type { Terminal } from "./terminal/terminal.ts"
import { TrainingDisplay } from "./training-display.ts"

/** What is trained: tuned so that the mean reward rises by a half or more in a minute on two cores. */
const TRAINING = {
  batch: 16,
  rank: 16,
  alpha: 32,
  learningRate: 2e-3,
  schedule: "linear",
  seed: 1,
  saveEvery: 0,
} as const
const SETTINGS = { numGenerations: 8, maxCompletionLength: 48 } as const

/** Optimizer steps on a machine that is fast enough, and seconds of training after which it ends anyway. */
const STEPS = 100
const MOST_SECONDS = 90

interface Task {
  readonly prompt: readonly { readonly role: string; readonly content: string }[]
  readonly answer: string
  readonly check: AnswerCheck
}

const readTasks = (path: string): Task[] =>
  readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Task)

/** Attempts at a task that is not trained on. */
const ATTEMPTS = 4

/** Share of attempts at tasks that are right, sampled as in training; greedy answers are nearly as good before as after, because what is learnt is to be sure. */
const solved = async (opened: OpenedModel, tasks: readonly Task[], adapters: boolean): Promise<number> => {
  let right = 0
  for (let seed = 0; seed < ATTEMPTS; seed++) {
    const answers = await completeAll(
      opened,
      tasks.map(({ prompt }) => prompt),
      { maxTokens: SETTINGS.maxCompletionLength, temperature: 1, seed, adapters },
    )
    right += tasks.filter(({ check, answer }, i) => checkAnswer(check, answers[i]!.text, answer)).length
  }
  return right / (ATTEMPTS * tasks.length)
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length)

/** `sloth quickstart --rl`: the embedded model learns from its own attempts at tasks whose answers can be checked. */
export const quickstartRl = async (
  sloth: Sloth,
  terminal: Terminal,
  options: { readonly model: string; readonly steps: number | undefined; readonly json: boolean },
): Promise<number> => {
  const started = performance.now()
  const { bold, dim, green, cyan } = terminal.errorStyle
  const files = nanoFiles()
  const display = new TrainingDisplay(terminal, { interval: 4000 })
  const interrupt = interruptible(() => display.stopping())
  const rewards: number[] = []
  const clock = new TrainingClock(MOST_SECONDS, options.steps)
  try {
    const { name } = await sloth.backend()
    terminal.say(`${bold("Sloth quickstart, reinforcement learning")} ${dim(`backend ${name}`)}`)
    terminal.say(
      `The model tries each task ${SETTINGS.numGenerations} times; attempts that are right get the reward 1, others 0, and what it did in the better ones becomes likelier (GRPO). It is shown no answer.`,
    )
    terminal.say()
    const outcome = await sloth.train({
      model: options.model,
      data: files.rlWriting,
      method: "grpo" as never,
      settings: SETTINGS as never,
      rewards: ["checked_answer"],
      ...TRAINING,
      steps: options.steps ?? STEPS,
      run: nextRunFolder(sloth.paths.runs, "quickstart-rl"),
      command: "sloth quickstart --rl",
      measure: false,
      keepModel: true,
      signal: interrupt.signal,
      onPrepared: (run) => display.prepared(run),
      onEvent: (event) => {
        if (event.type === "plan") clock.start()
        if (event.type === "step") rewards.push(event.metrics?.["reward"] ?? 0)
        display.event(event)
      },
      callbacks: [clock.callback],
    })
    display.end()
    using opened = outcome.opened!
    if (outcome.status === "interrupted") return tellInterrupted(terminal, outcome)
    const window = Math.max(1, Math.min(10, Math.floor(rewards.length / 2)))
    const [first, last] = [mean(rewards.slice(0, window)), mean(rewards.slice(-window))]
    terminal.say(`${green("✓")} trained ${outcome.steps} steps in ${formatSeconds(outcome.seconds)}`)
    terminal.say()
    terminal.say(bold("Mean reward"))
    terminal.say(`  ${green(sparkline(rewards, Math.min(60, terminal.width - 4)))}`)
    terminal.say(`  first ${window} steps ${bold(first.toFixed(3))}, last ${window} steps ${bold(last.toFixed(3))}`)
    const tasks = readTasks(files.rlWritingHeldOut)
    const [before, after] = [await solved(opened, tasks, false), await solved(opened, tasks, true)]
    terminal.say(
      `  ${tasks.length} other tasks, ${ATTEMPTS} attempts each: ${bold(`${Math.round(100 * before)} %`)} right before, ${bold(`${Math.round(100 * after)} %`)} after`,
    )
    terminal.say()
    const report = writeReport(outcome.run)
    const seconds = (performance.now() - started) / 1000
    const run = shortPath(outcome.run)
    tellDone(terminal, { seconds, report }, [
      [
        cyan(`sloth samples ${run} --from ${Math.max(1, outcome.steps - 5)} --sort reward`),
        "what it wrote, and what that earned",
      ],
      [cyan(`sloth chat --model ${run} --compare`), "talk to it, base and tuned side by side"],
      [
        cyan("sloth train --method grpo --model org/name --data prompts.jsonl --reward ./reward.ts"),
        "your model, your reward",
      ],
    ])
    if (options.json)
      terminal.print(
        JSON.stringify({
          run: outcome.run,
          report,
          steps: outcome.steps,
          seconds,
          reward: { first, last },
          heldOut: { tasks: tasks.length, before, after },
        }),
      )
    return EXIT.ok
  } finally {
    display.end()
    interrupt.stop()
  }
}
