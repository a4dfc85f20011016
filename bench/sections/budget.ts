import { runOwnJob } from "../lib/child.ts"
import type { BenchContext } from "../lib/context.ts"
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
  const off = Math.abs(r.plannedBytes / r.peakRssBytes - 1)
  add({
    ...at,
    name: `${name}: forecast`,
    value: spread([r.plannedBytes / 1e6]),
    unit: "MB planned",
    score: off,
    scoreOf: "off",
    bar: { must: 0.1, below: true },
  })
}

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
    ])
}

/** One packed row of a long context inside 4 GB; `tokens` long. */
export const longContext = async (context: BenchContext, tokens: number): Promise<void> =>
  one(context, "long context, LoRA r16, SmolLM2-135M, 4 GB", `${tokens} tokens`, [
    "--shape",
    "smollm2-135m",
    "--format",
    "q4_1",
    "--budget-mb",
    "4000",
    "--rows",
    "1",
    "--length",
    String(tokens),
  ])
