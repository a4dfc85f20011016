/**
 * Where the time goes: per-kernel time of a training step, of the update of a GRPO step, of prompt processing or of decoding, SmolLM2-135M.
 *
 *   bun bench/profile.ts train   [--rows 4 --length 512 --steps 2 --policy keep|recompute|checkpoint --budget 2048 --full --uneven]
 *   bun bench/profile.ts update  [--prompts 2 --prompt 256 --group 8 --completion 64 --budget 1024 --policy ... --steps 2]
 *   bun bench/profile.ts decode  [--batch 1 --prompt 64 --tokens 32]
 *   bun bench/profile.ts prefill [--prompt 512]
 *
 * The first kernel of a pass also carries what ran while JavaScript was enqueueing the pass.
 *
 * The f32 peak and the read bandwidth are measured before and after, in the same minute. All take --threads N, --precision P, --by kernel and --json FILE.
 */
import { writeFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { Generator } from "@sloth/infer"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { Engine } from "@sloth/tensor"
import type { TrainingUnit } from "@sloth/train"
import { choice, flag, number, text } from "./lib/options.ts"
import { Peaks } from "./lib/peaks.ts"
import { IDLE, profilingBackend, type ProfileEntry } from "./lib/profiling-backend.ts"
import { evenRows, instructionRows, tokenIds } from "./lib/rows.ts"
import { smollm2 } from "./lib/shapes.ts"
import { prepareTraining, prepareUpdate, type Training } from "./lib/training.ts"

const mode = process.argv[2]
const threads = number("threads", availableParallelism())
const backend = profilingBackend(
  await createCpuBackend({ threads, precision: choice("precision", ["f32", "bf16", "int8"]) }),
)
const engine = new Engine(backend)
const { model, files } = await smollm2(engine)

/** Measured entries, seconds of the same work without markers, and a title. */
interface Profile {
  readonly title: string
  readonly entries: ProfileEntry[]
  readonly seconds: number
  readonly plain: number
}

const profileSteps = async <Unit extends TrainingUnit>(
  { units, runner: runnerFor }: Training<Unit>,
  what: string,
): Promise<Profile> => {
  const policy = choice("policy", ["keep", "recompute", "checkpoint", "spill"])
  const steps = number("steps", 2)
  const runner = runnerFor(policy)
  await runner.run(1, units, 1)
  let plain = 0
  for (let step = 2; step < 2 + steps; step++) {
    const started = performance.now()
    await runner.run(step, units, 1)
    await backend.synchronize()
    plain += (performance.now() - started) / 1000 / steps
  }
  backend.start()
  for (let step = 2 + steps; step < 2 + 2 * steps; step++) await runner.run(step, units, 1)
  const { entries, seconds } = await backend.stop()
  for (const e of entries) {
    e.calls /= steps
    e.seconds /= steps
    e.flops /= steps
    e.bytes /= steps
  }
  const tokens = units.reduce((n, u) => n + u.sourceTokens, 0)
  return {
    title: `${what}, ${tokens} tokens, policy ${policy}, ${(tokens / plain).toFixed(0)} tok/s`,
    entries,
    seconds: seconds / steps,
    plain,
  }
}

const profileTraining = (): Promise<Profile> => {
  const rows = flag("uneven")
    ? instructionRows(number("rows", 16), number("length", 512))
    : evenRows(number("rows", 4), number("length", 512))
  const full = flag("full")
  return profileSteps(
    prepareTraining(engine, model, rows, { full, rank: 16, budget: number("budget", 2048) }),
    `training step, ${full ? "full" : "LoRA r16"}, ${rows.length} rows`,
  )
}

const profileUpdate = (): Promise<Profile> => {
  const shape = {
    prompts: number("prompts", 2),
    prompt: number("prompt", 256),
    group: number("group", 8),
    completion: number("completion", 64),
  }
  return profileSteps(
    prepareUpdate(engine, model, shape, { full: flag("full"), rank: 16, budget: number("budget", 1024) }),
    `update of a GRPO step, ${shape.prompts} x (${shape.prompt} + ${shape.group} x ${shape.completion})`,
  )
}

const profileGeneration = async (): Promise<Profile> => {
  if (files === undefined) throw new Error("generation needs the model file: set SLOTH_TEST_MODEL_GGUF")
  const decoding = mode === "decode"
  const batch = number("batch", 1)
  const promptTokens = number("prompt", decoding ? 64 : 512)
  const tokens = decoding ? number("tokens", 32) : 1
  const prompt = tokenIds(0, promptTokens)
  using generator = new Generator(model, files.tokenizer, { maxBatch: batch })
  const requests = Array.from({ length: batch }, (_, seed) => ({
    prompt,
    options: { maxTokens: tokens, ignoreEnd: true, temperature: batch > 1 ? 1 : 0, seed },
  }))
  /** Runs all requests; calls `begin` when the part to measure starts and returns the seconds since. */
  const run = async (begin: () => void): Promise<number> => {
    let started = performance.now()
    let seen = 0
    if (!decoding) begin()
    for await (const event of generator.stream(requests)) {
      // Decoding is measured from the moment all texts have their first token.
      if (decoding && event.type === "token" && ++seen === batch) {
        started = performance.now()
        begin()
      }
    }
    await backend.synchronize()
    return (performance.now() - started) / 1000
  }
  const passes = decoding ? tokens - 1 : 1
  await run(() => {})
  const plain = (await run(() => {})) / passes
  await run(() => backend.start())
  const { entries, seconds } = await backend.stop()
  for (const e of entries) {
    e.calls /= passes
    e.seconds /= passes
    e.flops /= passes
    e.bytes /= passes
  }
  return {
    title: decoding
      ? `decoding, batch ${batch}, ${promptTokens} prompt tokens, ${(batch / plain).toFixed(1)} tok/s`
      : `prompt of ${promptTokens} tokens, ${(promptTokens / plain).toFixed(0)} tok/s`,
    entries,
    seconds: seconds / passes,
    plain,
  }
}

if (mode !== "train" && mode !== "update" && mode !== "decode" && mode !== "prefill") {
  console.error("Usage: bun bench/profile.ts train|update|decode|prefill (options: see the head of the file)")
  process.exit(2)
}
using peaks = await Peaks.open()
const limits = async () => ({
  f32: await peaks.measure("f32", threads, 0.2),
  read: await peaks.measure("read", threads, 0.2),
})
const before = await limits()
const profiles = {
  train: profileTraining,
  update: profileUpdate,
  decode: profileGeneration,
  prefill: profileGeneration,
}
const result = await profiles[mode]()

const after = await limits()
const peak = (before.f32 + after.f32) / 2 / 1e9
const bandwidth = (before.read + after.read) / 2 / 1e9

/** Adds up entries of the same kernel. */
const byKernel = (entries: readonly ProfileEntry[]): ProfileEntry[] => {
  const sums = new Map<string, ProfileEntry>()
  for (const e of entries) {
    const label = e.label === IDLE ? IDLE : e.label.split(" ")[0]!
    const s = sums.get(label) ?? { label, calls: 0, seconds: 0, flops: 0, bytes: 0 }
    s.calls += e.calls
    s.seconds += e.seconds
    s.flops += e.flops
    s.bytes += e.bytes
    sums.set(label, s)
  }
  return [...sums.values()].sort((a, b) => b.seconds - a.seconds)
}

const print = (entries: readonly ProfileEntry[]): void => {
  const total = entries.reduce((n, e) => n + e.seconds, 0)
  console.log(
    `${"kernel".padEnd(62)}${"calls".padStart(7)}${"ms".padStart(10)}${"us/call".padStart(10)}${"share".padStart(8)}${"GFLOP/s".padStart(10)}${"GB/s".padStart(8)}${"of limit".padStart(10)}`,
  )
  for (const e of entries) {
    const rate = e.flops / e.seconds / 1e9
    console.log(
      `${e.label.padEnd(62)}${e.calls.toFixed(0).padStart(7)}${(e.seconds * 1e3).toFixed(2).padStart(10)}${((e.seconds * 1e6) / e.calls).toFixed(1).padStart(10)}${`${((100 * e.seconds) / total).toFixed(1)}%`.padStart(8)}${(e.flops > 0 ? rate.toFixed(1) : "").padStart(10)}${(e.bytes / e.seconds / 1e9).toFixed(1).padStart(8)}${(e.bytes > 0 ? `${((100 * Math.max(e.flops / peak, e.bytes / bandwidth)) / 1e9 / e.seconds).toFixed(0)}%` : "").padStart(10)}`,
    )
  }
}

const { device } = backend
console.log(`${result.title}; ${device.description}, ${device.isa}, ${device.threads} threads`)
console.log(
  `f32 peak ${(before.f32 / 1e9).toFixed(0)} before and ${(after.f32 / 1e9).toFixed(0)} GFLOP/s after, reading ${(before.read / 1e9).toFixed(1)} and ${(after.read / 1e9).toFixed(1)} GB/s; the limit of a kernel is the slower of its operations and its bytes`,
)
console.log(
  `${(result.plain * 1e3).toFixed(1)} ms without markers, ${(result.seconds * 1e3).toFixed(1)} ms with them (short kernels look longer than they are by the difference)\n`,
)
print(byKernel(result.entries))
if (text("by") !== "kernel") {
  console.log("")
  print(result.entries)
}
const json = text("json")
if (json !== undefined) writeFileSync(json, `${JSON.stringify({ device, ...result }, null, 2)}\n`)
process.exit(0)
