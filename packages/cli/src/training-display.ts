import { formatBytes } from "@sloth/core"
import type { RunEvent, RunEventOf, StepEvent } from "@sloth/core"
import { formatPlan, formatSeconds, type RunPlan } from "@sloth/train"
import type { PreparedRun } from "@sloth/sloth"
import { headlines } from "./metric-words.ts"
import { previewText } from "./terminal/preview.ts"
import { sparkline } from "./terminal/sparkline.ts"
import type { Style, Terminal } from "./terminal/terminal.ts"
import { clip, columns, count, fixed, visibleLength } from "./terminal/text.ts"

/** A plan as two columns of the terminal's width. */
export const planLines = (plan: RunPlan, style: Style, width: number): readonly string[] =>
  columns(
    formatPlan(plan)
      .split("\n")
      .map((line) => {
        const [, name, text] = /^(\S+)\s+(.*)$/.exec(line) ?? [line, "", line]
        return [name === "note" ? style.yellow("note") : style.cyan(name ?? ""), text ?? ""] as const
      }),
    width,
  )

/** What the data were recognised as, what became of them, and one example with its scored tokens marked. */
export const dataLines = ({ data }: PreparedRun, terminal: Pick<Terminal, "color" | "style">): readonly string[] => [
  terminal.style.bold("Data"),
  `  ${data.statement}`,
  ...data.summary.split("\n").map((line) => `  ${line}`),
  terminal.style.dim(
    !data.preview.some(({ scored }) => scored)
      ? "  first prompt:"
      : terminal.color
        ? "  first example, scored tokens highlighted:"
        : "  first example, scored tokens between [[ and ]]:",
  ),
  previewText(data.preview, terminal),
]

const oneLine = (text: string): string => text.trim().replace(/\s+/g, " ")

/** What else a person watches while completions are sampled: their length, and the KL divergence where there is one. */
const rewardFigures = ({ metrics }: StepEvent): string[] => {
  const [length, kl] = [metrics?.["completions/mean_length"], metrics?.["kl"]]
  return [
    ...(length === undefined ? [] : [`length ${length.toFixed(0)}`]),
    ...(kl === undefined ? [] : [`kl ${fixed(kl, 3)}`]),
  ]
}

/** Seconds as a clock: 0:42, 12:05, 3:20:00. */
const clock = (seconds: number): string => {
  const s = Math.max(0, Math.round(seconds))
  const [h, m, rest] = [Math.floor(s / 3600), Math.floor((s % 3600) / 60), s % 60]
  const two = (n: number): string => String(n).padStart(2, "0")
  return h > 0 ? `${h}:${two(m)}:${two(rest)}` : `${m}:${two(rest)}`
}

/** Shows a run on stderr: the plan, then one line that moves, or on a log a line every few steps. */
export class TrainingDisplay {
  readonly #terminal: Terminal
  readonly #style: Style
  /** Plain lines on a log are at least this far apart, in milliseconds. */
  readonly #interval: number
  #steps = 0
  #losses: number[] = []
  /** Mean rewards, for methods that have them. */
  #rewards: number[] = []
  #shownAt = -Infinity
  #sampleStep: number | undefined
  #last: StepEvent | undefined
  #lastAt = performance.now()
  #secondsPerStep: number | undefined
  #printedAt = -Infinity
  #shown = false
  #timer: ReturnType<typeof setInterval> | undefined
  #stopping = false
  /** True once there is a checkpoint that the run can go on from. */
  #saved: boolean

  /** `resumes` says that there is a run already, which may have checkpoints. */
  constructor(terminal: Terminal, options: { readonly interval?: number; readonly resumes?: boolean } = {}) {
    this.#terminal = terminal
    this.#style = terminal.errorStyle
    this.#interval = options.interval ?? 5000
    this.#saved = options.resumes === true
  }

  /** What is known before the plan. */
  prepared(run: PreparedRun): void {
    const color = this.#style.bold("x") !== "x"
    for (const line of dataLines(run, { color, style: this.#style })) this.#terminal.say(line)
    this.#terminal.say()
  }

  /** Takes the run's events in order. */
  event(event: RunEvent): void {
    switch (event.type) {
      case "run-start":
        this.#saved = event.resumedFromStep !== undefined
        if (this.#saved) this.#line(`Resuming from step ${event.resumedFromStep}.`)
        return
      case "plan": {
        const plan = event.plan as unknown as RunPlan
        this.#steps = plan.steps
        this.#secondsPerStep = plan.time?.secondsPerStep
        this.#terminal.say(this.#style.bold("Plan"))
        for (const line of planLines(plan, this.#style, this.#terminal.width)) this.#terminal.say(line)
        this.#terminal.say()
        this.#start()
        return
      }
      case "step":
        this.#step(event)
        return
      case "sample":
        if (event.phase === "during") this.#sample(event)
        return
      case "eval":
        this.#line(
          `${this.#style.cyan("eval")} step ${event.step}: loss ${fixed(event.loss, 4)}${event.perplexity === undefined ? "" : `, perplexity ${event.perplexity.toFixed(2)}`}${headlines(
            event.metrics,
            3,
          )
            .map((text) => `, ${text}`)
            .join("")}${event.best === true ? ", the best so far" : ""}`,
        )
        return
      case "checkpoint":
        this.#saved = true
        this.#line(
          this.#style.dim(
            `checkpoint ${event.path}${event.bytes === undefined ? "" : ` (${formatBytes(event.bytes)})`}`,
          ),
        )
        return
      case "warning":
        this.#line(`${this.#style.yellow("warning")} ${event.code}: ${event.message}`)
        return
      default:
        return
    }
  }

  /** The mean reward of the last rollout and of the first that was seen; undefined for methods without rewards. */
  get reward(): { readonly last: number; readonly first: number } | undefined {
    return this.#rewards.length === 0 ? undefined : { last: this.#rewards.at(-1)!, first: this.#rewards[0]! }
  }

  /** Says that the run stops after this step. */
  stopping(): void {
    this.#stopping = true
    this.#line("Stopping and saving. Ctrl-C again quits at once.")
  }

  /** Says that the run is left where it stands, and what goes on with it. */
  leaving(command: string): void {
    this.#line(
      this.#saved
        ? `Left without saving. The newest checkpoint goes on with: ${this.#style.bold(command)}`
        : "Left; nothing had been saved yet.",
    )
  }

  /** Takes the moving line away. */
  end(): void {
    clearInterval(this.#timer)
    if (this.#terminal.live && this.#shown) this.#terminal.sayRaw("\n")
    this.#shown = false
  }

  #start(): void {
    this.#lastAt = performance.now()
    if (!this.#terminal.live) return
    this.#timer = setInterval(() => this.#draw(), 250)
    this.#timer.unref()
    this.#draw()
  }

  /** A completion with its reward, at most every few seconds; those of one step stay together. */
  #sample({ step, prompt, completion, reward }: RunEventOf<"sample">): void {
    const now = performance.now()
    if (this.#sampleStep !== step) {
      if (now - this.#shownAt < Math.max(this.#interval, 5000)) return
      this.#shownAt = now
      this.#sampleStep = step
      this.#line(`${this.#style.dim(`step ${step}`)} ${clip(oneLine(prompt), this.#terminal.width - 12)}`)
    }
    const score = reward === undefined ? "none" : reward.toFixed(2)
    this.#line(
      `  ${this.#style.cyan(score.padStart(6))}  ${clip(oneLine(completion) || "(nothing)", this.#terminal.width - 10)}`,
    )
  }

  #step(event: StepEvent): void {
    this.#losses.push(event.loss)
    const reward = event.metrics?.["reward"]
    if (reward !== undefined) this.#rewards.push(reward)
    this.#last = event
    this.#lastAt = performance.now()
    const before = this.#secondsPerStep
    this.#secondsPerStep = before === undefined ? event.seconds : before * 0.8 + event.seconds * 0.2
    if (this.#terminal.live) {
      this.#draw()
      return
    }
    const now = performance.now()
    const ends = event.step === 1 || event.step === this.#steps
    if (!ends && now - this.#printedAt < this.#interval) return
    this.#printedAt = now
    this.#terminal.say(this.#text(this.#terminal.width * 2))
  }

  #left(): number | undefined {
    const perStep = this.#secondsPerStep
    return perStep === undefined ? undefined : (this.#steps - (this.#last?.step ?? 0)) * perStep - this.#elapsed()
  }

  #elapsed(): number {
    return this.#terminal.live ? (performance.now() - this.#lastAt) / 1000 : 0
  }

  #text(width: number): string {
    const { bold, dim, green } = this.#style
    const last = this.#last
    const left = this.#left()
    const parts =
      last === undefined
        ? [`step 0/${this.#steps}`, `${formatSeconds(this.#elapsed())} in the first step`]
        : [
            bold(`step ${last.step}/${this.#steps}`),
            ...(this.#rewards.length === 0
              ? [`loss ${bold(fixed(last.loss, 4))}`, ...headlines(last.metrics)]
              : [`reward ${bold(fixed(this.#rewards.at(-1)!, 3))}`, ...rewardFigures(last)]),
            `lr ${last.learningRate.toExponential(1)}`,
            `${count(last.tokensPerSecond)} tokens/s`,
            ...(left === undefined || last.step === this.#steps ? [] : [`${clock(left)} left`]),
            formatBytes(last.peakRssBytes),
            ...(this.#stopping ? ["stopping"] : []),
          ]
    const text = parts.join(dim(" · "))
    const room = Math.min(24, width - visibleLength(text) - 3)
    return this.#terminal.live && room >= 8
      ? `${text}  ${green(sparkline(this.#rewards.length === 0 ? this.#losses : this.#rewards, room))}`
      : text
  }

  #draw(): void {
    this.#shown = true
    const width = this.#terminal.width - 1
    const text = this.#text(width)
    this.#terminal.sayRaw(`\r\u001b[K${visibleLength(text) <= width ? text : clip(this.#plain(text), width)}`)
  }

  #plain(text: string): string {
    // eslint-disable-next-line no-control-regex
    return text.replace(/\u001b\[[0-9;]*m/g, "")
  }

  /** A line that stays, above the moving one. */
  #line(text: string): void {
    if (this.#terminal.live && this.#shown) this.#terminal.sayRaw("\r\u001b[K")
    this.#terminal.say(text)
    if (this.#terminal.live && this.#shown) this.#draw()
  }
}
