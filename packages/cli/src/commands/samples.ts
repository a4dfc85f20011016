import { resolve } from "node:path"
import * as Schema from "effect/Schema"
import { field, readRunConfig, runPaths, SlothError, withDefault } from "@sloth/core"
import { readSamples, type SampleRecord } from "@sloth/train"
import { defineCommand } from "../command.ts"
import { shortPath } from "../export-lines.ts"
import { questionOf } from "../report/report-data.ts"
import { jsonField } from "../session-flags.ts"
import { clip, table, wrapText } from "../terminal/text.ts"

const SORTS = ["step", "reward", "advantage", "tokens"] as const

/** A number of a line; undefined where it has none. */
const numberOf = (sample: SampleRecord, key: string): number | undefined => {
  const value = sample[key]
  return typeof value === "number" ? value : undefined
}

const rewardsOf = (sample: SampleRecord): Readonly<Record<string, number | null>> =>
  (sample["rewards"] ?? {}) as Readonly<Record<string, number | null>>

/** The score that filters and sorting go by: of one reward, or their weighted sum. */
const scoreOf = (sample: SampleRecord, reward: string | undefined): number | undefined =>
  reward === undefined ? numberOf(sample, "reward") : (rewardsOf(sample)[reward] ?? undefined)

/** A turn of an episode. */
interface Turn {
  readonly text: string
  readonly tokens: number
  readonly reward: number
  readonly answer: readonly { readonly role: string; readonly content: string }[]
}

const turnsOf = (sample: SampleRecord): readonly Turn[] | undefined =>
  Array.isArray(sample["turns"]) ? (sample["turns"] as readonly Turn[]) : undefined

/** What was said in an episode, line by line: each turn with what it earned, and what the environment answered. */
const dialogue = (turns: readonly Turn[]): readonly { readonly text: string; readonly faint: boolean }[] =>
  turns.flatMap(({ text, tokens, reward, answer }, i) => [
    { text: `turn ${i + 1}: ${shown(reward)} for ${tokens} tokens`, faint: true },
    { text: text.trim() || "(nothing)", faint: false },
    ...answer.map(({ role, content }) => ({ text: `${role}: ${content.trim()}`, faint: true })),
  ])

const shown = (value: number | null | undefined): string =>
  value === null || value === undefined ? "-" : String(Number(value.toFixed(3)))

/** `sloth samples`. */
export const command = defineCommand({
  name: "samples",
  summary: "Browse the completions of a run, with what each reward gave them.",
  description:
    "Prints completions that a run sampled during training, from its samples.jsonl: filtered by step, row, score or text, sorted, with the score of every reward and the advantage.",
  session: false,
  positionals: [{ name: "run", description: "The run folder.", required: true }],
  options: Schema.Struct({
    step: field.int({ description: "Only this optimizer step.", min: 1 }).pipe(Schema.optionalKey),
    from: field.int({ description: "Only from this step on.", min: 1 }).pipe(Schema.optionalKey),
    to: field.int({ description: "Only up to this step.", min: 1 }).pipe(Schema.optionalKey),
    row: field.int({ description: "Only this row of the data, from 0.", min: 0 }).pipe(Schema.optionalKey),
    reward: field
      .text({ description: "Filter and sort by the score of this reward; by the weighted sum when absent." })
      .pipe(Schema.optionalKey),
    min: field.number({ description: "Only scores from this up." }).pipe(Schema.optionalKey),
    max: field.number({ description: "Only scores up to this." }).pipe(Schema.optionalKey),
    unscored: field.boolean({ description: "Only completions that have no score." }).pipe(withDefault(false)),
    truncated: field.boolean({ description: "Only completions that were cut at the limit." }).pipe(withDefault(false)),
    search: field.text({ description: "Only where prompt or completion holds this text." }).pipe(Schema.optionalKey),
    sort: field
      .choice(SORTS, {
        description: "Order by step, score, advantage or length, the largest first; as they were made when absent.",
      })
      .pipe(Schema.optionalKey),
    ascending: field.boolean({ description: "With sort: the smallest first." }).pipe(withDefault(false)),
    limit: field.int({ description: "Most completions to print; 0 prints all.", min: 0 }).pipe(withDefault(20)),
    full: field.boolean({ description: "Print whole texts instead of one line each." }).pipe(withDefault(false)),
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    { command: "sloth samples runs/mine --sort reward", description: "the best completions of the run" },
    {
      command: "sloth samples runs/mine --from 50 --sort reward --ascending --full",
      description: "the worst of the later ones, in full",
    },
    {
      command: "sloth samples runs/mine --reward soft_format --max 0 --json",
      description: "what one reward refused, as lines of JSON",
    },
  ],
  run: async ({ options, positionals, terminal, cwd }) => {
    const run = resolve(cwd, positionals[0]!)
    readRunConfig(run)
    const all = readSamples(runPaths(run).samples)
    if (all.length === 0)
      throw new SlothError("SLOTH_SAMPLES_NONE", {
        what: `The run ${shortPath(run)} has no completions.`,
        why: "Only methods that sample during training, such as grpo, write samples.jsonl.",
        fields: { path: run },
      })
    const { reward, search, limit, sort, ascending } = options
    const names = [...new Set(all.flatMap((sample) => Object.keys(rewardsOf(sample))))]
    if (reward !== undefined && !names.includes(reward))
      throw new SlothError("SLOTH_SAMPLES_REWARD", {
        what: `The run has no reward "${reward}".`,
        why: `Its rewards are ${names.join(", ")}.`,
        fields: { reward, rewards: names },
      })
    const within = (value: number | undefined, low: number | undefined, high: number | undefined): boolean =>
      (low === undefined || (value !== undefined && value >= low)) &&
      (high === undefined || (value !== undefined && value <= high))
    const found = all.filter((sample) => {
      const text = `${questionOf(sample["prompt"])}\n${String(sample["completion"] ?? "")}`
      return (
        (options.step === undefined || sample.step === options.step) &&
        within(sample.step, options.from, options.to) &&
        (options.row === undefined || sample["row"] === options.row) &&
        within(scoreOf(sample, reward), options.min, options.max) &&
        (!options.unscored || scoreOf(sample, reward) === undefined) &&
        (!options.truncated || sample["finish"] === "length") &&
        (search === undefined || text.includes(search))
      )
    })
    const key = (sample: SampleRecord): number | undefined =>
      sort === "reward" ? scoreOf(sample, reward) : numberOf(sample, sort ?? "step")
    const sign = ascending ? 1 : -1
    // Completions without a score come last in either order; equal ones stay in the order they were made.
    const sorted =
      sort === undefined
        ? found
        : found.toSorted((a, b) => {
            const [x, y] = [key(a), key(b)]
            return x === undefined || y === undefined
              ? Number(x === undefined) - Number(y === undefined)
              : sign * (x - y)
          })
    const printed = limit === 0 ? sorted : sorted.slice(0, limit)
    if (options.json) {
      for (const sample of printed) terminal.print(JSON.stringify(sample))
      return
    }
    const { dim, bold, cyan } = terminal.style
    const scores = found.flatMap((sample) => scoreOf(sample, reward) ?? [])
    const mean = scores.length === 0 ? undefined : scores.reduce((a, b) => a + b, 0) / scores.length
    terminal.print(
      `${bold(String(found.length))} of ${all.length} completions, mean ${reward ?? "reward"} ${shown(mean)}${
        printed.length < found.length ? dim(`; ${printed.length} shown, --limit shows more`) : ""
      }`,
    )
    if (found.length === 0 && all.length > 0)
      terminal.print(`None fits. The run has steps ${all[0]!.step} to ${all.at(-1)!.step}.`)
    if (found.length > 0)
      for (const line of table(
        ["reward", "mean", "lowest", "highest", "scored"],
        names.map((name) => {
          const values = found.flatMap((sample) => rewardsOf(sample)[name] ?? [])
          return [
            name,
            shown(values.length === 0 ? undefined : values.reduce((a, b) => a + b, 0) / values.length),
            shown(values.length === 0 ? undefined : values.reduce((a, b) => Math.min(a, b))),
            shown(values.length === 0 ? undefined : values.reduce((a, b) => Math.max(a, b))),
            String(values.length),
          ]
        }),
      ))
        terminal.print(line)
    for (const sample of printed) {
      const completion = String(sample["completion"] ?? "").trim() || "(nothing)"
      const facts = [
        `step ${sample.step}`,
        `row ${String(sample["row"])}.${String(sample["index"])}`,
        `${String(sample["tokens"])} tokens${sample["finish"] === "length" ? ", cut" : ""}`,
        ...(turnsOf(sample) === undefined
          ? []
          : [
              `turns ${turnsOf(sample)!
                .map(({ reward: earned }) => shown(earned))
                .join(" ")}, ended: ${String(sample["ended"])}`,
            ]),
        `advantage ${shown(numberOf(sample, "advantage"))}`,
        ...(names.length > 1 ? names.map((name) => `${name} ${shown(rewardsOf(sample)[name])}`) : []),
      ].join(dim(" · "))
      terminal.print()
      terminal.print(`${cyan(shown(numberOf(sample, "reward")).padStart(7))}  ${facts}`)
      const texts = [questionOf(sample["prompt"]).trim(), completion] as const
      const turns = turnsOf(sample)
      const parts =
        turns === undefined
          ? [
              { text: texts[0], faint: true },
              { text: texts[1], faint: false },
            ]
          : [{ text: texts[0], faint: true }, ...dialogue(turns)]
      if (options.full)
        for (const { text, faint } of parts)
          for (const line of wrapText(text, terminal.width - 11)) terminal.print(`         ${faint ? dim(line) : line}`)
      else
        for (const [i, text] of texts.entries()) {
          const line = clip(text.replace(/\s+/g, " "), terminal.width - 10)
          terminal.print(`         ${i === 0 ? dim(line) : line}`)
        }
    }
  },
})
