import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readEvents, runPaths, type StepEvent } from "@sloth/core"
import { localRollout, type KnownPrefix } from "@sloth/infer"
import { attachLora, type CausalLM } from "@sloth/model"
import { grpo, sampledUnits, type SampledUnit } from "@sloth/rl"
import { createReferenceBackend, Engine, FEW_ROWS, type ActivationPolicy } from "@sloth/tensor"
import { buildMicroBatch, disposeOutputs, knownSpans, planRun, recordedOutputs, train } from "@sloth/train"
import { letters } from "../packages/infer/testing/letters.ts"
import { evenTokens, tinyModel } from "../packages/rl/src/internal/testing/tiny-grpo.ts"
import { cpuBackend } from "./support/cpu.ts"
import { buildTiny } from "./support/tiny.ts"

// The reference backend is slow.
setDefaultTimeout(60_000)

/** Token ids that differ from each other early. */
const ids = (n: number, row: number): number[] => Array.from({ length: n }, (_, t) => 1 + ((7 * row + 11 * t) % 120))
const LORA = { rank: 4, alpha: 8, dropout: 0, rankStabilized: false, targets: "all-linear", modulesToSave: [] } as const

/** Completions of prompts, with what was kept of these. */
const sample = async (
  model: CausalLM,
  sizes: readonly number[],
  count: number,
  keepPrompts: number,
  maxTokens = 48,
) => {
  const kept = new Map<number, KnownPrefix>()
  await using rollout = localRollout.create(model, { tokenizer: letters })
  const prompts = sizes.map((n, row) => ({ tokens: ids(n, row), count }))
  const completions = await Array.fromAsync(
    rollout.generate(
      prompts,
      { maxTokens, seed: 3 },
      { keepPrompts, keep: (prompt, prefix) => void kept.set(prompt, prefix) },
    ),
  )
  completions.sort((a, b) => a.prompt - b.prompt || a.index - b.index)
  return { kept, prompts, completions }
}

/** Log-probs, and gradients of all adapters for made-up gradients of them, micro-batch by micro-batch. */
const gradients = async (model: CausalLM, split: readonly (readonly SampledUnit[])[], policy: ActivationPolicy) => {
  const { engine } = model
  const batches = split.map((units) => buildMicroBatch(units))
  const seen: Float32Array[] = []
  for (const [i, batch] of batches.entries()) {
    const known = knownSpans(batch, batches.slice(i + 1))
    const { outputs, tape } = recordedOutputs(model, batch, {}, { policy, known })
    seen.push(await outputs.logprobs!.readFloats())
    engine.scope(() => {
      const gradient = Float32Array.from(batch.targets, (_, k) => Math.sin(k))
      tape.backward([{ tensor: outputs.logprobs!, gradient: engine.from(gradient) }])
    })
    disposeOutputs(outputs)
  }
  for (const { tensor } of model.trainables()) seen.push(await tensor.grad!.readFloats())
  model.clearGradients()
  return seen
}

const folder = mkdtempSync(join(tmpdir(), "sloth-kept-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Prompts of several sizes and their units: a group in two pieces, one of a single completion, whose prompt is no segment of its own, and one whose prompt is too short to be kept. */
const setUp = async (engine: Engine, maxTokens = 48) => {
  const model = buildTiny(engine, "untied")
  attachLora(model, LORA, 1)
  // B is zero at first: then nothing depends on the products with A.
  for (const { tensor, outer } of model.trainables())
    if (outer) engine.backend.kernels.randomNormal(tensor.handle, 0, 0.1, tensor.size, 5, 1)
  const sizes = [100, 180, 60, FEW_ROWS]
  const { kept, prompts, completions } = await sample(model, sizes, 3, sizes.length, maxTokens)
  const units = prompts.flatMap(({ tokens }, row) => {
    const own = completions.filter(({ prompt }) => prompt === row).map((c) => ({ tokens: c.tokens, advantage: 1 }))
    const pieces = row === 1 ? [own.slice(0, 1), own.slice(1)] : [own]
    return pieces.flatMap((some) => sampledUnits(tokens, some, row))
  })
  const [a, b, c, d, e] = units as [SampledUnit, SampledUnit, SampledUnit, SampledUnit, SampledUnit]
  const split = [
    [a, e, b],
    [c, d],
  ]
  const taking = split.map((some) =>
    some.map((unit): SampledUnit => {
      const prefix = kept.get(unit.row)
      return prefix === undefined ? unit : { ...unit, prefix }
    }),
  )
  return { model, kept, split, taking }
}

for (const [name, open] of [
  ["reference", () => Promise.resolve(createReferenceBackend())],
  ["cpu", () => cpuBackend({ threads: 2 })],
  ["cpu without avx512", () => cpuBackend({ threads: 2, isa: "avx2" }).catch(() => undefined)],
] as const)
  describe(`prompts kept from the rollout for the step: ${name}`, async () => {
    const backend = await open()
    afterAll(() => backend?.[Symbol.dispose]())

    for (const policy of ["keep", "recompute", "checkpoint"] as const)
      test.skipIf(backend === undefined)(
        `loss and gradients have the same bits as without, policy ${policy}`,
        async () => {
          const engine = new Engine(backend!)
          const before = backend!.memory.stats().liveBuffers
          {
            const { model, kept, split, taking } = await setUp(engine)
            using _ = model
            expect([...kept.keys()].sort()).toEqual([0, 1, 2])
            // Prompts are read together until there are 256 rows, and each such pass is freed as a whole.
            expect(kept.get(1)).toMatchObject({ from: 100, rows: 180 })
            expect(kept.get(1)!.known).toBe(kept.get(0)!.known)
            const bytes = () => [...kept.values()].map(({ known }) => known.bytes)
            expect(bytes().every((n) => n > 0)).toBe(true)
            const plain = await gradients(model, split, policy)
            expect(await gradients(model, taking, policy)).toEqual(plain)
            // What the last pass to need it has taken is free; a block that runs twice takes nothing.
            expect(bytes().every((n) => n === 0)).toBe(policy !== "checkpoint")
            for (const { known } of kept.values()) known[Symbol.dispose]()
          }
          expect(backend!.memory.stats().liveBuffers).toBe(before)
        },
      )

    test.skipIf(backend === undefined)("beside completions of a few tokens too", async () => {
      const engine = new Engine(backend!)
      // Between two prompts lie 18 rows, of which products alone would have other bits.
      const { model, kept, split, taking } = await setUp(engine, 6)
      using _ = model
      const plain = await gradients(model, split, "keep")
      expect(await gradients(model, taking, "keep")).toEqual(plain)
      // It was taken: what is not, nobody frees.
      expect([...kept.values()].every(({ known }) => known.bytes === 0)).toBe(true)
      for (const { known } of kept.values()) known[Symbol.dispose]()
    })

    test.skipIf(backend === undefined)("what is kept is what is used", async () => {
      const engine = new Engine(backend!)
      const { model, kept, split, taking } = await setUp(engine)
      using _ = model
      const { tensor } = model.linears.get("model.layers.0.self_attn.v_proj")!.weight
      const { y } = kept.get(0)!.known.get(tensor)!
      engine.backend.kernels.scale(y.handle, y.handle, 2, y.size, 0)
      expect(await gradients(model, taking, "keep")).not.toEqual(await gradients(model, split, "keep"))
      for (const { known } of kept.values()) known[Symbol.dispose]()
    })
  })

describe("a run that keeps prompts", () => {
  const engine = new Engine(createReferenceBackend())
  afterAll(() => {
    expect(engine.backend.memory.stats().liveBuffers).toBe(0)
    engine[Symbol.dispose]()
  })
  const examples = Array.from({ length: 4 }, (_, row) => ({
    tokens: ids(48, row),
    prompt: `${row}`,
    columns: { want: 0 },
    row,
  }))
  const options = (path: string, settings: Record<string, unknown> = {}, config: Record<string, unknown> = {}) => ({
    engine,
    model: tinyModel(),
    data: { examples },
    objective: grpo,
    rewards: [evenTokens],
    settings: { numGenerations: 4, maxCompletionLength: 24, ...settings },
    config: { steps: 2, batch: 2, rank: 4, learningRate: 1e-2, ...config },
    measure: false,
    run: join(folder, path),
  })
  const outcome = (run: string) => ({
    adapter: readFileSync(join(run, "adapter", "adapter_model.safetensors")),
    losses: readEvents(runPaths(run).events)
      .filter((e): e is StepEvent => e.type === "step")
      .map(({ loss, gradNorm }) => [loss, gradNorm]),
  })

  test("ends with the bits of one that does not", async () => {
    const kept = await train(options("kept"))
    expect(kept.plan.kept).toMatchObject({ prompts: 2 })
    // An engine that the method does not know keeps nothing.
    const plain = await train({ ...options("plain"), rollout: { ...localRollout, name: "other" } })
    expect(plain.plan.kept).toBeUndefined()
    expect(outcome(kept.run)).toEqual(outcome(plain.run))
  })

  test("goes on bit for bit where it was aborted in scoring, sampling or learning, and frees what it kept", async () => {
    const backend = await cpuBackend({ threads: 2 })
    // The reference backend has no kernels that add up few rows otherwise.
    using own = new Engine(backend ?? createReferenceBackend())
    const config = { steps: 3, saveEvery: 1 }
    const whole = await train({ ...options("whole", {}, config), engine: own })
    expect(whole.plan.kept).toMatchObject({ prompts: 2 })
    for (const at of ["score", "sample", "step"] as const) {
      const controller = new AbortController()
      let scored = 0
      const stopping: typeof evenTokens = {
        ...evenTokens,
        score: (samples, context) => {
          if (at === "score" && ++scored === 2) controller.abort()
          return evenTokens.score(samples, context)
        },
      }
      const first = await train({
        ...options(`aborted-${at}`, {}, config),
        engine: own,
        rewards: [stopping],
        signal: controller.signal,
        onEvent: (event) => {
          if (event.type === at && event.step === 2) controller.abort()
        },
      })
      expect(first.status).toBe("interrupted")
      expect(own.backend.memory.stats().liveBuffers).toBe(0)
      const second = await train({ ...options(`aborted-${at}`), config: {}, engine: own, resume: true })
      expect(second.status).toBe("completed")
      expect(second.plan.kept).toEqual(whole.plan.kept!)
      expect(outcome(second.run)).toEqual(outcome(whole.run))
    }
    expect(own.backend.memory.stats().liveBuffers).toBe(0)
  })

  test("holds what the plan says", async () => {
    using own = new Engine(createReferenceBackend())
    const { plan } = await train({ ...options("own"), engine: own })
    const { peakBytes } = own.backend.memory.stats()
    const { memory } = plan
    const held = memory.weightBytes + memory.adapterBytes + memory.gradientBytes + memory.optimizerBytes
    const planned = held + Math.max(memory.activationBytes, memory.rolloutBytes!)
    expect(plan.kept!.bytes).toBeGreaterThan(0)
    expect(Math.abs(planned / peakBytes - 1)).toBeLessThan(0.1)
  })

  test("keeps nothing where the step would not compute the same", async () => {
    const planned = async (settings: Record<string, unknown>, config: Record<string, unknown> = {}) =>
      (await planRun(options("none", settings, config))).kept
    expect(await planned({})).toBeDefined()
    expect(await planned({ numIterations: 2 })).toBeUndefined()
    expect(await planned({ maxStaleness: 1 })).toBeUndefined()
    expect(await planned({ kvCache: "f16" })).toBeUndefined()
    expect(await planned({}, { dropout: 0.1 })).toBeUndefined()
    expect(await planned({}, { policy: "checkpoint" })).toBeUndefined()
  })
})
