import { join } from "node:path"
import { smollm2Path, SMOLLM2_ABSENT } from "../../tests/support/smollm2.ts"
import { LLAMA_ABSENT, peerLlama, peerPython, PYTHON_ABSENT, root, runJob, runOwnJob } from "../lib/child.ts"
import { bestOf, contest, type Competitor, type Outcome } from "../lib/contest.ts"
import type { BenchContext } from "../lib/context.ts"
import type { Bar } from "../lib/figures.ts"
import { median, spread } from "../lib/stats.ts"

interface Result {
  /** Tokens per second of reading the prompt, and of growing the texts. */
  readonly prompts: readonly number[]
  readonly decodes: readonly number[]
  readonly peakRssBytes: number
}

interface Job {
  readonly group: string
  readonly batch: number
  readonly prompt: number
  readonly tokens: number
  readonly part: "prompts" | "decodes"
  readonly overLlama?: Bar
  readonly overLlamaInt8?: Bar
  readonly overTransformers?: Bar
  /** Also with `precision: "bf16"`, where the processor has it. */
  readonly overTransformersBf16?: Bar
}

const runGeneration = async (context: BenchContext, job: Job): Promise<void> => {
  const { threads, quick, rounds, precisions, filter, add, say } = context
  if (filter !== undefined && !job.group.includes(filter)) return
  const at = { section: "generate", group: job.group }
  const runs = quick ? 1 : 3
  const speedOf = (r: Result): number => median(r[job.part])
  const middle = (o: Outcome<Result>): number => median(o.values.map(speedOf))
  const words = [
    ["--batch", job.batch],
    ["--prompt", job.prompt],
    ["--tokens", job.tokens],
    ["--runs", runs],
    ["--threads", threads],
  ]
    .flat()
    .map(String)
  const ours = (name: string, extra: readonly string[]): Competitor<Result> => ({
    name,
    team: name,
    run: () => runOwnJob<Result>("generate.ts", [...words, ...extra]),
  })
  const competitors = [ours("sloth f32", [])]
  if (precisions.includes("int8")) competitors.push(ours("sloth int8", ["--precision", "int8"]))
  if (precisions.includes("bf16") && job.overTransformersBf16 !== undefined)
    competitors.push(ours("sloth bf16", ["--precision", "bf16"]))
  const llama = peerLlama()
  // node-llama-cpp decodes one text at a time as well as it can; batches are compared with transformers.
  if (llama !== undefined && job.batch === 1)
    competitors.push({
      name: "llama.cpp",
      team: "llama.cpp",
      run: () =>
        runJob<Result>(
          "node",
          [
            join(root, "bench/peers/llama-generate.mjs"),
            smollm2Path!,
            ...[job.prompt, job.tokens, runs, threads].map(String),
          ],
          { cwd: llama },
        ),
    })
  const python = peerPython()
  if (python !== undefined)
    for (const settings of quick ? [[]] : [[], ["--bf16"]])
      competitors.push({
        name: `transformers ${settings.length > 0 ? "bf16" : "f32"}`,
        team: "transformers",
        run: () =>
          runJob<Result>(python, [join(root, "bench/peers/generate.py"), ...words, ...settings], {
            env: { SLOTH_TEST_MODEL_GGUF: smollm2Path! },
          }),
      })
  const outcomes = await contest(competitors, rounds, speedOf, (text) => say(`${job.group}: ${text}`))
  for (const o of outcomes.values())
    if (o.values.length === 0) add({ ...at, name: o.name, missing: o.error ?? "did not run" })
    else
      add({
        ...at,
        name: o.name,
        value: spread(o.values.flatMap((v) => v[job.part])),
        unit: "tok/s",
        note: `${(median(o.values.map((v) => v.peakRssBytes)) / 1e6).toFixed(0)} MB peak`,
      })
  if (llama === undefined && job.batch === 1) add({ ...at, name: "llama.cpp", missing: LLAMA_ABSENT })
  if (python === undefined) add({ ...at, name: "transformers", missing: PYTHON_ABSENT })

  const ratio = (own: string, team: string, bar: Bar | undefined): void => {
    const mine = outcomes.get(own)
    const theirs = bestOf(outcomes, team, middle)
    if (bar === undefined || mine === undefined || mine.values.length === 0 || theirs === undefined) return
    const n = Math.min(mine.values.length, theirs.values.length)
    const ratios = Array.from({ length: n }, (_, i) => speedOf(mine.values[i]!) / speedOf(theirs.values[i]!))
    add({
      ...at,
      name: `${own} / ${theirs.name}`,
      value: spread(ratios),
      unit: "x",
      score: median(ratios),
      scoreOf: "x peer",
      bar,
    })
  }
  ratio("sloth f32", "llama.cpp", job.overLlama)
  ratio("sloth int8", "llama.cpp", job.overLlamaInt8)
  ratio("sloth f32", "transformers", job.overTransformers)
  ratio("sloth bf16", "transformers", job.overTransformersBf16)
}

/** Generation with SmolLM2-135M Q4_1 against llama.cpp on the same file and transformers on its weights. */
export const generate = async (context: BenchContext): Promise<void> => {
  if (smollm2Path === undefined) {
    context.add({ section: "generate", group: "generation", name: "SmolLM2-135M Q4_1", missing: SMOLLM2_ABSENT })
    return
  }
  const tokens = context.quick ? 16 : 64
  await runGeneration(context, {
    group: `generation, 1 text, ${tokens} tokens after 64`,
    batch: 1,
    prompt: 64,
    tokens,
    part: "decodes",
    overLlama: { must: 1.5, aim: 3 },
    overTransformers: { must: 5, aim: 10 },
  })
  for (const batch of context.quick ? [8] : [8, 16])
    await runGeneration(context, {
      group: `generation, ${batch} texts with one prompt, ${tokens} tokens after 64`,
      batch,
      prompt: 64,
      tokens,
      part: "decodes",
      overTransformers: { must: 4, aim: 8 },
      overTransformersBf16: { must: 4, aim: 8 },
    })
  await runGeneration(context, {
    group: "prompt of 512 tokens",
    batch: 1,
    prompt: 512,
    tokens: 2,
    part: "prompts",
    overLlama: { must: 1.2, aim: 2 },
    overLlamaInt8: { must: 1.8, aim: 4 },
  })
}
