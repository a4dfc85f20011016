import { createHash } from "node:crypto"
import { createCpuBackend } from "@sloth/kernels-cpu"
import type { CausalLM, ModelFiles } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import {
  AdamW,
  parameterGroups,
  resolveTrainConfig,
  scheduleFactor,
  splitUnits,
  StepRunner,
  unitFromTokens,
  type TrainingUnit,
} from "@sloth/train"
import { goldenJson } from "../../tests/support/golden.ts"
import { attachGoldenLora, openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "../../tests/support/smollm2.ts"
import { atMost, exactly, type ParityContext } from "../lib/check.ts"

interface Golden {
  readonly config: {
    readonly batch: number
    readonly learningRate: number
    readonly clip: number
    readonly steps: number
  }
  readonly rows: readonly { readonly tokens: readonly number[]; readonly mask: readonly number[] }[]
  readonly steps: readonly { readonly loss: number; readonly gradNorm: number }[]
}

/** Rows of an optimizer step and how they are split. */
interface Split {
  readonly batch: number
  /** Micro-batches a step; as many as rows when not packed. */
  readonly parts: number
  readonly packing: boolean
}

/** Smallest token budget that makes `parts` micro-batches of the units, or as near as best fit comes. */
const budgetFor = (units: readonly TrainingUnit[], parts: number): number => {
  const total = units.reduce((n, u) => n + u.tokens.length, 0)
  const longest = Math.max(...units.map((u) => u.tokens.length))
  let best = total
  for (let budget = total; budget >= longest; budget--) {
    const got = splitUnits(units, { tokenBudget: budget, packing: true }).length
    if (got > parts) break
    best = budget
    if (got === parts) break
  }
  return best
}

/** Losses and gradient norms of the golden run's first `steps` steps, split as told. */
const runSteps = async (
  model: CausalLM,
  golden: Golden,
  steps: number,
  split: Split,
): Promise<{ loss: number; gradNorm: number; parts: number }[]> => {
  const config = resolveTrainConfig({ learningRate: golden.config.learningRate })
  using optimizer = new AdamW(model.engine, parameterGroups(model, config), config)
  const units = golden.rows.map((r, i) => unitFromTokens(Int32Array.from(r.tokens), (t) => r.mask[t] === 1, i)!)
  const all = Math.floor(units.length / split.batch)
  const out: { loss: number; gradNorm: number; parts: number }[] = []
  for (let step = 1; step <= Math.min(steps, all); step++) {
    const part = units.slice((step - 1) * split.batch, step * split.batch)
    const runner = new StepRunner(model, optimizer, {
      loss: { kind: "cross-entropy" },
      policy: "recompute",
      seed: 0,
      maxGradNorm: golden.config.clip,
      tokenBudget: budgetFor(part, split.parts),
      packing: split.packing,
    })
    const r = await runner.run(
      step,
      part,
      scheduleFactor({ schedule: "linear", warmupSteps: 0, warmupRatio: 0 }, step, all),
    )
    out.push({ loss: r.loss, gradNorm: r.gradNorm, parts: r.microBatches })
  }
  return out
}

const withModel = async <T>(engine: Engine, files: ModelFiles, work: (model: CausalLM) => Promise<T>): Promise<T> => {
  using model = files.build(engine)
  attachGoldenLora(model, 0)
  // Awaited here: the model must live until the work is done.
  return await work(model)
}

const largest = (a: readonly { loss: number }[], b: readonly { loss: number }[]): number =>
  Math.max(...a.map((s, i) => Math.abs(s.loss - b[i]!.loss)))

/** Twenty LoRA steps against transformers + PEFT, in every split of the batch. */
export const steps = async ({ quick, threads, add, say }: ParityContext): Promise<void> => {
  if (smollm2Path === undefined) return add({ what: "20 LoRA steps", skipped: SMOLLM2_ABSENT })
  const golden = goldenJson<Golden>("smollm2", "lora-steps.json")
  using engine = new Engine(await createCpuBackend({ threads }))
  const files = await openSmollm2()
  const count = quick ? 4 : golden.config.steps
  const { batch } = golden.config
  for (const split of [
    { batch, parts: 1, packing: true },
    { batch, parts: 2, packing: true },
    { batch, parts: 4, packing: false },
  ]) {
    const name = `${count} LoRA steps of ${batch} rows, ${split.packing ? "packed" : "unpacked"}, ${split.parts} micro-batch${split.parts > 1 ? "es" : ""}`
    say(name)
    const got = await withModel(engine, files, (model) => runSteps(model, golden, count, split))
    const norm = Math.max(...got.map((s, i) => Math.abs(s.gradNorm / golden.steps[i]!.gradNorm - 1)))
    add(
      atMost(
        `${name}: largest difference of loss to transformers + PEFT`,
        largest(got, golden.steps),
        1e-3,
        " nats",
        `gradient norms within ${norm.toExponential(1)}; micro-batches a step: ${[...new Set(got.map((s) => s.parts))].join(", ")}`,
      ),
    )
  }
  // The golden run has 4 rows a step; 8 micro-batches need 8, and are compared with the same rows in one.
  const wide = Math.min(count, golden.rows.length / 8)
  say("8 micro-batches against 1")
  const whole = await withModel(engine, files, (model) =>
    runSteps(model, golden, wide, { batch: 8, parts: 1, packing: true }),
  )
  const eight = await withModel(engine, files, (model) =>
    runSteps(model, golden, wide, { batch: 8, parts: 8, packing: false }),
  )
  add(
    atMost(
      `${wide} LoRA steps of 8 rows, 8 micro-batches: largest difference of loss to 1`,
      largest(eight, whole),
      1e-3,
      " nats",
    ),
  )
}

/** The adapter after three steps must have the same bits on any number of threads. */
export const threadsEqual = async ({ quick, add, say }: ParityContext): Promise<void> => {
  if (smollm2Path === undefined) return add({ what: "1 and 2 threads", skipped: SMOLLM2_ABSENT })
  const golden = goldenJson<Golden>("smollm2", "lora-steps.json")
  const files = await openSmollm2()
  const hashes: string[] = []
  const counts = quick ? [1, 2] : [1, 2, 3]
  for (const threads of counts) {
    say(`3 steps on ${threads} thread${threads > 1 ? "s" : ""}`)
    using engine = new Engine(await createCpuBackend({ threads }))
    hashes.push(
      await withModel(engine, files, async (model) => {
        await runSteps(model, golden, 3, { batch: golden.config.batch, parts: 1, packing: true })
        const hash = createHash("sha256")
        for (const t of model.trainables()) hash.update(new Uint8Array((await t.tensor.readFloats()).slice().buffer))
        return hash.digest("hex").slice(0, 16)
      }),
    )
  }
  const same = hashes.every((h) => h === hashes[0])
  add(
    exactly(
      `adapter after 3 LoRA steps on ${counts.join(", ")} threads`,
      same ? "same bits" : `differs: ${hashes.join(", ")}`,
      "same bits",
      hashes[0],
    ),
  )
}
