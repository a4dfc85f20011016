import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { smollm2Path, SMOLLM2_ABSENT } from "../../tests/support/smollm2.ts"
import { peerPython, PYTHON_ABSENT, root, runJob, runOwnJob } from "../lib/child.ts"
import { bestOf, contest, type Competitor, type Outcome } from "../lib/contest.ts"
import type { BenchContext } from "../lib/context.ts"
import type { Bar } from "../lib/figures.ts"
import { instructionRows } from "../lib/rows.ts"
import { median, spread } from "../lib/stats.ts"

interface Result {
  readonly tokens: number
  readonly scored: number
  readonly padded?: number
  readonly seconds: readonly number[]
  readonly losses: readonly number[]
  readonly peakRssBytes: number
  readonly weightBytes?: number
  readonly flops?: number
  /** f32 peak just before and after, operations per second. */
  readonly peak?: number
}

interface Job {
  readonly group: string
  readonly ours: readonly string[]
  readonly peer: readonly string[]
  /** Settings in which the peer is tried. */
  readonly peerSettings: readonly (readonly string[])[]
  readonly ratio: Bar
  readonly fraction?: Bar
  readonly memory?: boolean
}

const speedOf = (r: Result): number => r.tokens / median(r.seconds)
const middle = (o: Outcome<Result>): number => median(o.values.map(speedOf))

/** Gradients agree, so must the losses before the first update: both sides did the same work. In nats; half-precision peers are left out of it. */
const SAME_LOSS = 5e-3

const runTraining = async (context: BenchContext, job: Job): Promise<void> => {
  const { threads, quick, rounds, precisions, peaks, filter, add, say } = context
  if (filter !== undefined && !job.group.includes(filter)) return
  const python = peerPython()
  const steps = quick ? "1" : "2"
  const common = ["--steps", steps, "--warmup", "1", "--threads", String(threads)]
  const ours = (name: string, extra: readonly string[]): Competitor<Result> => ({
    name,
    team: name,
    run: async () => {
      const before = await peaks.measure("f32", threads, 0.1)
      const result = await runOwnJob<Result>("train-step.ts", [...job.ours, ...common, ...extra])
      const peak = (before + (await peaks.measure("f32", threads, 0.1))) / 2
      return result.ok ? { ok: true, values: result.values.map((v) => ({ ...v, peak })) } : result
    },
  })
  const competitors: Competitor<Result>[] = [ours("sloth f32", [])]
  if (precisions.includes("bf16")) competitors.push(ours("sloth bf16", ["--precision", "bf16"]))
  if (python !== undefined && smollm2Path !== undefined)
    for (const settings of quick ? job.peerSettings.slice(0, 1) : job.peerSettings)
      competitors.push({
        name: `transformers${job.ours.includes("--full") ? "" : " + PEFT"} ${settings.includes("--bf16") ? "bf16" : "f32"}${settings.includes("--checkpointing") ? ", checkpointing" : ""}`,
        team: "transformers",
        run: () =>
          runJob<Result>(python, [join(root, "bench/peers/train.py"), ...job.peer, ...common, ...settings], {
            env: { SLOTH_TEST_MODEL_GGUF: smollm2Path! },
          }),
      })
  const outcomes = await contest(competitors, rounds, speedOf, (text) => say(`${job.group}: ${text}`))
  const at = { section: "train", group: job.group }
  const best = bestOf(outcomes, "transformers", middle)
  const mine = outcomes.get("sloth f32")!

  for (const o of outcomes.values()) {
    if (o.values.length === 0) {
      add({ ...at, name: o.name, missing: o.error ?? "did not run" })
      continue
    }
    const memory = median(o.values.map((v) => v.peakRssBytes))
    const padded = o.values[0]!.padded
    add({
      ...at,
      name: `${o.name}${o.name === best?.name ? " (the peer's best)" : ""}`,
      value: spread(o.values.flatMap((v) => v.seconds.map((s) => v.tokens / s))),
      unit: "tok/s",
      note: `${(memory / 1e6).toFixed(0)} MB peak${padded !== undefined && padded !== o.values[0]!.tokens ? `, ${padded} padded for ${o.values[0]!.tokens} real tokens` : ""}`,
    })
  }
  if (python === undefined) add({ ...at, name: "transformers + PEFT", missing: PYTHON_ABSENT })
  else if (smollm2Path === undefined) add({ ...at, name: "transformers + PEFT", missing: SMOLLM2_ABSENT })
  if (mine.values.length === 0) return

  if (job.fraction !== undefined) {
    const fractions = mine.values.map((v) => v.flops! / median(v.seconds) / v.peak!)
    add({
      ...at,
      name: "necessary products / time",
      value: spread(mine.values.map((v) => v.flops! / median(v.seconds) / 1e9)),
      unit: "GFLOP/s",
      score: median(fractions),
      scoreOf: "of f32 peak",
      bar: job.fraction,
      note: `f32 peak beside it ${(median(mine.values.map((v) => v.peak!)) / 1e9).toFixed(0)} GFLOP/s`,
    })
  }
  const memory = median(mine.values.map((v) => v.peakRssBytes))
  if (job.memory === true) {
    const above = mine.values.map((v) => (v.peakRssBytes - v.weightBytes!) / 1e6)
    add({
      ...at,
      name: "peak memory above the weights",
      value: spread(above),
      unit: "MB",
      score: median(above),
      scoreOf: "MB",
      bar: { must: 700, aim: 400, below: true },
    })
  }
  if (best !== undefined) {
    // Rounds stand side by side, so the ratio is taken round by round.
    const n = Math.min(mine.values.length, best.values.length)
    const ratios = Array.from({ length: n }, (_, i) => speedOf(mine.values[i]!) / speedOf(best.values[i]!))
    const f32 = [...outcomes.values()].find(
      (o) => o.team === "transformers" && o.name.includes("f32") && o.values.length > 0,
    )
    const apart = f32 === undefined ? undefined : Math.abs(f32.values[0]!.losses[0]! - mine.values[0]!.losses[0]!)
    add({
      ...at,
      name: `sloth f32 / ${best.name}`,
      value: spread(ratios),
      unit: "x",
      score: median(ratios),
      scoreOf: "x peer",
      bar: job.ratio,
      ...(apart === undefined
        ? {}
        : {
            note: `${apart > SAME_LOSS ? "NOT THE SAME WORK: " : ""}first losses ${apart.toExponential(1)} nats apart`,
          }),
    })
    // Its fastest setting, and the one that computes what Sloth computes: f32, nothing twice.
    const plain = [...outcomes.values()].find((o) => o.team === "transformers" && o.name.endsWith("f32"))
    if (job.memory === true)
      for (const peer of new Set([plain, best])) {
        if (peer === undefined || peer.values.length === 0) continue
        const share = memory / median(peer.values.map((v) => v.peakRssBytes))
        add({
          ...at,
          name: `peak memory / ${peer.name}`,
          value: spread([100 * share]),
          unit: "%",
          score: share,
          scoreOf: "of peer",
          bar: { must: 0.12, aim: 0.08, below: true },
        })
      }
  }
  const half = outcomes.get("sloth bf16")
  if (half !== undefined && half.values.length > 0 && best?.name.includes("bf16") === true) {
    const n = Math.min(half.values.length, best.values.length)
    const ratios = Array.from({ length: n }, (_, i) => speedOf(half.values[i]!) / speedOf(best.values[i]!))
    add({
      ...at,
      name: `sloth bf16 / ${best.name}`,
      value: spread(ratios),
      unit: "x",
      score: median(ratios),
      scoreOf: "x peer",
      bar: job.ratio,
    })
  }
  if (half !== undefined && half.values.length > 0) {
    const n = Math.min(mine.values.length, half.values.length)
    const ratios = Array.from({ length: n }, (_, i) => speedOf(half.values[i]!) / speedOf(mine.values[i]!))
    add({
      ...at,
      name: "sloth bf16 / sloth f32",
      value: spread(ratios),
      unit: "x",
      score: median(ratios),
      scoreOf: "x own f32",
      bar: { must: 1.5, aim: 1.8 },
    })
  }
}

/** Training steps of SmolLM2-135M against transformers + PEFT. */
export const train = async (context: BenchContext): Promise<void> => {
  const { quick } = context
  const length = quick ? "128" : "512"
  const settings = [[], ["--checkpointing"], ["--bf16"], ["--bf16", "--checkpointing"]]
  await runTraining(context, {
    group: `LoRA r16 all-linear, 4 rows of ${length}, all scored`,
    ours: ["--rows", "4", "--length", length, "--policy", "recompute", "--budget", "512"],
    peer: ["--rows", "4", "--length", length],
    peerSettings: settings,
    ratio: { must: 1.5, aim: 2.2 },
    fraction: { must: 0.7, aim: 0.85 },
    memory: true,
  })

  const count = quick ? 8 : 16
  const longest = quick ? 128 : 512
  const file = join(root, ".cache/bench/instruction-rows.jsonl")
  mkdirSync(join(root, ".cache/bench"), { recursive: true })
  writeFileSync(
    file,
    instructionRows(count, longest)
      .map((r) => `${JSON.stringify(r)}\n`)
      .join(""),
  )
  await runTraining(context, {
    group: `LoRA r16, ${count} instruction rows of uneven length, responses only (peer: padded batches of 8)`,
    ours: [
      "--uneven",
      "--rows",
      String(count),
      "--length",
      String(longest),
      "--policy",
      "recompute",
      "--budget",
      "512",
    ],
    peer: ["--data", file, "--batch", "8"],
    peerSettings: settings,
    ratio: { must: 2.8, aim: 4 },
  })

  await runTraining(context, {
    group: `full fine-tuning, 4 rows of ${length}, all scored`,
    ours: ["--full", "--rows", "4", "--length", length, "--policy", "keep", "--budget", "1024"],
    peer: ["--full", "--rows", "4", "--length", length],
    peerSettings: settings,
    ratio: { must: 1.4, aim: 1.8 },
  })
}
