import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test"
import { isSlothError } from "@sloth/core"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { resolveTrainConfig, type TrainConfigInput } from "./config.ts"
import { evaluateUnits } from "./evaluate.ts"
import { countingExamples, randomFiles } from "./internal/testing/tiny.ts"
import { makeTrainable } from "./model-files.ts"
import type { CrossEntropyLoss, LogprobBatch, LogprobLoss, ObjectiveLoss, TrainingUnit } from "./objective.ts"
import { AdamW, parameterGroups } from "./optimizer.ts"
import { unitFromExample } from "./sft.ts"
import { StepRunner } from "./step-runner.ts"

setDefaultTimeout(60_000)

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

/** Runs a few steps and returns losses, norms and metrics. */
const curve = async <U extends TrainingUnit>(
  loss: ObjectiveLoss<U>,
  units: readonly U[],
  options: { tokenBudget?: number; packing?: boolean; config?: TrainConfigInput; steps?: number } = {},
) => {
  const config = resolveTrainConfig({ rank: 4, learningRate: 1e-2, ...options.config })
  using model = randomFiles().build(engine)
  makeTrainable(model, config)
  using optimizer = new AdamW(engine, parameterGroups(model, config), config)
  const runner = new StepRunner<U>(model, optimizer, {
    loss,
    policy: "keep",
    tokenBudget: options.tokenBudget ?? 4096,
    packing: options.packing ?? true,
    seed: 0,
    maxGradNorm: 1,
  })
  const out: { loss: number; gradNorm: number; metrics: Readonly<Record<string, number>> }[] = []
  for (let step = 1; step <= (options.steps ?? 4); step++) out.push(await runner.run(step, units, 1))
  return out
}

const closeCurves = (
  a: readonly { loss: number; gradNorm: number }[],
  b: readonly { loss: number; gradNorm: number }[],
) => {
  for (const [i, x] of a.entries()) {
    expect(x.loss).toBeCloseTo(b[i]!.loss, 5)
    expect(x.gradNorm / b[i]!.gradNorm).toBeCloseTo(1, 3)
  }
}

const units = countingExamples(6).map((e) => unitFromExample(e)!)

/** The cross-entropy written as a loss of log-probs. */
const likelihood: LogprobLoss = {
  kind: "logprobs",
  compute: ({ logprobs, normaliser }) => {
    let loss = 0
    for (const value of logprobs) loss -= value / normaliser
    return { loss, dlogp: new Float64Array(logprobs.length).fill(-1 / normaliser), metrics: { nats: loss } }
  },
}

describe("the two forms of a loss", () => {
  test("the same loss gives the same steps in both forms, however it is split", async () => {
    const fused = await curve({ kind: "cross-entropy" }, units)
    closeCurves(await curve(likelihood, units), fused)
    closeCurves(await curve(likelihood, units, { tokenBudget: 20 }), fused)
    const unpacked = await curve(likelihood, units, { packing: false })
    closeCurves(unpacked, fused)
    for (const step of unpacked) expect(step.metrics["nats"]).toBeCloseTo(step.loss, 10)
  })

  test("weights known beforehand: both forms agree", async () => {
    const weights = (unit: TrainingUnit) => Float32Array.from(unit.targets, (_, i) => (i % 3) / 2)
    const size = (unit: TrainingUnit) => weights(unit).reduce((a, b) => a + b, 0)
    const fused: CrossEntropyLoss = { kind: "cross-entropy", weights, size }
    const plain: LogprobLoss = {
      kind: "logprobs",
      size,
      compute: ({ units: batch, starts, logprobs, normaliser }) => {
        const dlogp = new Float64Array(logprobs.length)
        let loss = 0
        for (const [u, unit] of batch.entries())
          for (const [k, w] of weights(unit).entries()) {
            dlogp[starts[u]! + k] = -w / normaliser
            loss -= (w * logprobs[starts[u]! + k]!) / normaliser
          }
        return { loss, dlogp }
      },
    }
    closeCurves(await curve(plain, units), await curve(fused, units, { tokenBudget: 20 }))
    using model = randomFiles().build(engine)
    const [a, b] = [
      await evaluateUnits(model, units, { loss: fused }),
      await evaluateUnits(model, units, { loss: plain }),
    ]
    expect(a.loss).toBeCloseTo(b.loss, 5)
  })
})

/** A preference pair as a forest: the prompt once, both answers after it. */
const pair = (row: number): TrainingUnit & { readonly chosen: number } => {
  const [prompt, chosen, rejected] = [
    [1, 5 + row, 9],
    [12, 13 + row, 2],
    [30, 31 + row, 32, 2],
  ]
  const tokens = [...prompt, ...chosen.slice(0, -1), ...rejected.slice(0, -1)]
  return {
    tokens: Int32Array.from(tokens),
    segments: [
      { length: 3, parent: null },
      { length: 2, parent: 0 },
      { length: 3, parent: 0 },
    ],
    // Both first tokens are predicted by the last row of the prompt.
    scoredRows: Int32Array.of(2, 3, 4, 2, 5, 6, 7),
    targets: Int32Array.from([...chosen, ...rejected]),
    sourceTokens: tokens.length + 2,
    row,
    chosen: 3,
  }
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))

/** Direct preference optimisation, as a check that the contract carries it. */
const dpo: LogprobLoss<ReturnType<typeof pair>> = {
  kind: "logprobs",
  reference: true,
  size: () => 1,
  compute: ({ units: batch, starts, logprobs, reference, normaliser }: LogprobBatch<ReturnType<typeof pair>>) => {
    const beta = 0.5
    const dlogp = new Float64Array(logprobs.length)
    let [loss, margin] = [0, 0]
    for (const [u, unit] of batch.entries()) {
      let d = 0
      const sign = (k: number) => (k < unit.chosen ? 1 : -1)
      for (let k = 0; k < unit.targets.length; k++)
        d += sign(k) * (logprobs[starts[u]! + k]! - reference![starts[u]! + k]!)
      loss += Math.log1p(Math.exp(-beta * d)) / normaliser
      margin += d / normaliser
      for (let k = 0; k < unit.targets.length; k++)
        dlogp[starts[u]! + k] = (-beta * sigmoid(-beta * d) * sign(k)) / normaliser
    }
    return { loss, dlogp, metrics: { margin } }
  },
}

describe("a loss with a reference", () => {
  const pairs = [0, 1, 2, 3].map(pair)

  test("starts at ln 2 because the fresh adapter changes nothing, falls, and the margin grows", async () => {
    const steps = await curve(dpo, pairs, { steps: 12, config: { learningRate: 5e-2 } })
    expect(steps[0]!.loss).toBeCloseTo(Math.LN2, 6)
    expect(steps[0]!.metrics["margin"]).toBeCloseTo(0, 5)
    expect(steps.at(-1)!.loss).toBeLessThan(Math.LN2 - 0.01)
    expect(steps.at(-1)!.metrics["margin"]).toBeGreaterThan(0.02)
    closeCurves(await curve(dpo, pairs, { steps: 3, packing: false }), await curve(dpo, pairs, { steps: 3 }))
  })

  test("needs an adapter", async () => {
    const error = await curve(dpo, pairs, { config: { full: true, rank: undefined } }).catch((e: unknown) => e)
    expect(isSlothError(error) && error.code).toBe("SLOTH_TRAIN_REFERENCE")
  })

  test("a gradient of the wrong length is refused", async () => {
    const wrong: LogprobLoss = { kind: "logprobs", compute: () => ({ loss: 0, dlogp: new Float32Array(1) }) }
    const error = await curve(wrong, units).catch((e: unknown) => e)
    expect(isSlothError(error) && error.code).toBe("SLOTH_OBJECTIVE_GRADIENT")
  })
})
