import { runOwnJob } from "../lib/child.ts"
import type { BenchContext } from "../lib/context.ts"
import type { Line } from "../lib/figures.ts"
import { SHAPES, type ShapeId } from "../lib/shapes.ts"
import { spread } from "../lib/stats.ts"

interface Result {
  readonly tokens: number
  readonly seconds: readonly number[]
  readonly policy: string
  readonly tokenBudget: number
  readonly plannedBytes: number
  readonly budgetBytes: number
  readonly peakRssBytes: number
}

const one = async (
  { threads, add, say }: BenchContext,
  group: string,
  name: string,
  words: readonly string[],
): Promise<void> => {
  say(`${group}: ${name}`)
  const at = { section: "budget", group }
  const result = await runOwnJob<Result>("budget.ts", [...words, "--threads", String(threads)])
  if (!result.ok) return add({ ...at, name, missing: result.error })
  const r = result.values.at(-1)!
  const tokensPerSecond = r.seconds.map((s) => r.tokens / s)
  add({
    ...at,
    name,
    value: spread([r.peakRssBytes / 1e6]),
    unit: "MB peak",
    score: r.peakRssBytes / r.budgetBytes,
    scoreOf: "of budget",
    bar: { must: 1, below: true },
    note: `${r.policy}, ${r.tokenBudget} tokens a pass, ${spread(tokensPerSecond).median.toFixed(0)} tok/s`,
  })
  add(forecastLine(at, `${name}: forecast`, r))
}

/** How far the plan was from what the process took. */
const forecastLine = (
  at: { readonly section: string; readonly group: string },
  name: string,
  { plannedBytes, peakRssBytes }: Pick<Result, "plannedBytes" | "peakRssBytes">,
): Line => ({
  ...at,
  name,
  value: spread([plannedBytes / 1e6]),
  unit: "MB planned",
  score: Math.abs(plannedBytes / peakRssBytes - 1),
  scoreOf: "off",
  bar: { must: 0.1, aim: 0.03, below: true },
  note: `peak ${(peakRssBytes / 1e6).toFixed(1)} MB, ${((plannedBytes / peakRssBytes - 1) * 100).toFixed(1)} %`,
})

/** LoRA steps of larger models inside memory budgets, and whether the plan's forecast holds. */
export const budget = async (context: BenchContext): Promise<void> => {
  const cases: readonly (readonly [ShapeId, number])[] = context.quick
    ? [["smollm2-135m", 1000]]
    : [
        ["qwen2.5-0.5b", 1000],
        ["llama-3.2-1b", 2000],
      ]
  const length = context.quick ? 128 : 512
  for (const [shape, megabytes] of cases)
    await one(context, "memory budget, LoRA r16, q4_0 random weights", `${SHAPES[shape].name}, ${megabytes} MB`, [
      "--shape",
      shape,
      "--budget-mb",
      String(megabytes),
      "--rows",
      "2",
      "--length",
      String(length),
      // Gradients meet the optimizer's states in the second.
      "--steps",
      "2",
    ])
}

/** Texts in the packed row of a long context: attention over them is a small part of the work, so that the row takes minutes. */
const TEXT = 1024

/** `tokens` tokens of context inside 4 GB, in one pass: texts packed into one row, and one text as long as the row. */
export const longContext = async (context: BenchContext, tokens: number): Promise<void> => {
  const words = ["--shape", "smollm2-135m", "--format", "q4_1", "--budget-mb", "4000"]
  const group = "long context, LoRA r16, SmolLM2-135M, 4 GB"
  const texts = Math.max(1, Math.floor(tokens / TEXT))
  const packed = ["--rows", String(texts), "--length", String(TEXT), "--token-budget", String(texts * TEXT)]
  await one(context, group, `${texts * TEXT} tokens in ${texts} texts`, [...words, ...packed])
  await one(context, group, `${tokens} tokens in one text`, [...words, "--rows", "1", "--length", String(tokens)])
}

/** Settings that differ in what takes memory. The forecast follows from layouts and shapes; its one fitted number, how much a process grows besides, was read from some of these runs. */
const FORECASTS: readonly (readonly [name: string, words: string])[] = [
  ["LoRA r16, 2 x 256", "--rows 2 --length 256"],
  ["LoRA r8, 5 x 100, kept", "--rows 5 --length 100 --rank 8 --policy keep"],
  ["LoRA r64, 2 x 200, kept, bf16", "--rows 2 --length 200 --rank 64 --policy keep --precision bf16"],
  ["LoRA r16, 6 x 200, 256 tokens a pass, dropout", "--rows 6 --length 200 --token-budget 256 --dropout 0.05"],
  ["LoRA r16, 3 x 700, blocks twice", "--rows 3 --length 700 --policy checkpoint --token-budget 2100"],
  ["LoRA r16, 600, spilled, dropout", "--rows 1 --length 600 --policy spill --dropout 0.05"],
  ["all weights, 256", "--rows 1 --length 256 --full"],
  [
    "all weights, 8-bit states, 3 x 128, blocks twice",
    "--rows 3 --length 128 --full --optimizer adamw8bit --policy checkpoint",
  ],
  ["DPO, LoRA r16, 2 pairs of 128", "--method dpo --rows 2 --length 128"],
]

/** Whether plans hold for settings of every kind: forecast, peak, difference. */
export const forecast = async (context: BenchContext): Promise<void> => {
  const { threads, quick, add, say, filter } = context
  const group = "forecast of memory, SmolLM2-135M's shape, 2 steps"
  const at = { section: "forecast", group }
  const report = async (name: string, job: string, words: readonly string[]): Promise<void> => {
    if (filter !== undefined && !name.includes(filter)) return
    say(`${group}: ${name}`)
    const result = await runOwnJob<Result>(job, [...words, "--threads", String(threads)])
    add(result.ok ? forecastLine(at, name, result.values.at(-1)!) : { ...at, name, missing: result.error })
  }
  const common = ["--shape", "smollm2-135m", "--format", "q4_1", "--budget-mb", "8000", "--steps", "2"]
  for (const [name, words] of quick ? FORECASTS.slice(0, 2) : FORECASTS)
    await report(name, "budget.ts", [...common, ...words.split(" ")])
  if (!quick)
    await report(
      "GRPO, LoRA r16, 2 groups of 4 x 32 after 64",
      "grpo.ts",
      "--prompts 2 --prompt 64 --group 4 --completion 32 --steps 1 --warmup 1".split(" "),
    )
}
