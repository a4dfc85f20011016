import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { loadPeftAdapter, readPeftConfig, readSafetensors, savePeftAdapter } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { loraConfigOf, resolveTrainConfig } from "./config.ts"
import { evaluateUnits } from "./evaluate.ts"
import { disposeOutputs, hostOutputs, readOutputs, recordedOutputs } from "./forward.ts"
import { computePart, wantedOutputs } from "./host-loss.ts"
import { expectSlopes } from "./internal/testing/slopes.ts"
import { examplesOf, readGolden, tinyFiles } from "./internal/testing/tiny.ts"
import { buildMicroBatch } from "./micro-batch.ts"
import { makeTrainable } from "./model-files.ts"
import type { LogprobLoss, ValueLoss } from "./objective.ts"
import { AdamW, parameterGroups } from "./optimizer.ts"
import { unitFromExample } from "./sft.ts"
import { StepRunner } from "./step-runner.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const units = examplesOf(readGolden("tied").trainRows)
  .slice(0, 4)
  .map((example) => unitFromExample(example)!)
const config = resolveTrainConfig({ rank: 4, learningRate: 1e-2, maxGradNorm: 0 })

/** Half the mean square distance of every value from its place in the row. */
const values: ValueLoss = {
  kind: "values",
  compute: ({ values: given, normaliser, starts }) => {
    const target = (p: number) => p - starts.findLast((s) => s <= p)!
    const off = Float64Array.from(given, (v, p) => v - 0.1 * target(p))
    return {
      loss: off.reduce((n, x) => n + (x * x) / 2, 0) / normaliser,
      dvalues: off.map((x) => x / normaliser),
      metrics: { value: given.reduce((n, v) => n + v, 0) / normaliser },
    }
  },
}
/** A likelihood and the values in one, as a policy gradient with a critic has them. */
const both: LogprobLoss = {
  kind: "logprobs",
  values: true,
  compute: (batch) => {
    const critic = values.compute({ ...batch, values: batch.values! })
    return {
      loss: critic.loss - batch.logprobs.reduce((n, lp) => n + lp, 0) / batch.normaliser,
      dlogp: batch.logprobs.map(() => -1 / batch.normaliser),
      dvalues: critic.dvalues,
    }
  },
}
/** The same with a term of the entropies, weighted differently at every position. */
const sharp: LogprobLoss = {
  kind: "logprobs",
  values: true,
  entropy: true,
  compute: (batch) => {
    const rest = both.compute(batch)
    const weights = Float64Array.from(batch.entropy!, (_, p) => Math.sin(p) / batch.normaliser)
    return {
      ...rest,
      loss: rest.loss + batch.entropy!.reduce((n, h, p) => n + h * weights[p]!, 0),
      dentropy: weights,
    }
  },
}

const withModel = async <R>(
  body: (parts: { model: ReturnType<ReturnType<typeof tinyFiles>["build"]>; optimizer: AdamW }) => Promise<R>,
) => {
  using model = tinyFiles("tied").build(engine)
  makeTrainable(model, config, undefined, { scoreHead: true })
  using optimizer = new AdamW(engine, parameterGroups(model, config), config)
  return await body({ model, optimizer })
}

describe("a score head", () => {
  for (const [name, loss] of [
    ["values alone", values],
    ["log-probs and values", both],
    ["log-probs, entropies and values", sharp],
  ] as const)
    test(`${name}: the loss falls along its gradient as finite differences say, for every trainable tensor`, () =>
      withModel(async ({ model }) => {
        const batch = buildMicroBatch(units)
        const where = {
          units: batch.units,
          starts: batch.starts,
          indices: units.map((_, i) => i),
          normaliser: batch.targets.length,
          step: 1,
        }
        const lossNow = async () => {
          const outputs = await hostOutputs(model, batch, wantedOutputs(loss))
          return computePart(loss, { ...where, outputs, reference: undefined }, undefined).loss
        }
        // B of a fresh LoRA is zero, and then A has no gradient.
        for (const { name: tensor, tensor: t } of model.trainables())
          if (tensor.includes("lora_B")) engine.backend.kernels.randomNormal(t.handle, 0, 0.1, t.size, 1, 1)
        const { outputs, tape } = recordedOutputs(model, batch, wantedOutputs(loss), {})
        const read = await readOutputs(outputs)
        const result = computePart(loss, { ...where, outputs: read, reference: undefined }, undefined)
        engine.scope(() =>
          tape.backward(
            (["logprobs", "entropy", "values"] as const).flatMap((key) => {
              const gradient = { logprobs: result.dlogp, entropy: result.dentropy, values: result.dvalues }[key]
              const tensor = outputs[key]
              return tensor === undefined || gradient === undefined
                ? []
                : [{ tensor, gradient: engine.from(Float32Array.from(gradient), tensor.shape) }]
            }),
          ),
        )
        disposeOutputs(outputs)
        expect(model.trainables().at(-1)!.name).toBe("score.weight")
        await expectSlopes(model.trainables(), lossNow)
        model.clearGradients()
      }))

  test("it learns, in one micro-batch as in several, and evaluates as it learns", () =>
    withModel(async ({ model, optimizer }) => {
      const common = { loss: values, policy: "keep", packing: true, seed: 0, maxGradNorm: 0 } as const
      const [whole, split] = [4096, 24].map(
        (tokenBudget) => new StepRunner(model, optimizer, { ...common, tokenBudget }),
      ) as [StepRunner, StepRunner]
      const before = await whole.run(1, units, 0)
      const parts = await split.run(2, units, 0)
      expect(parts.microBatches).toBeGreaterThan(1)
      expect(parts.gradNorm).toBeCloseTo(before.gradNorm, 5)
      expect((await evaluateUnits(model, units, { loss: values })).loss).toBeCloseTo(before.loss, 5)
      for (let step = 3; step < 30; step++) await whole.run(step, units, 1)
      const after = await evaluateUnits(model, units, { loss: values })
      expect(after.loss).toBeLessThan(before.loss / 4)
      expect(after.metrics["value"]).toBeGreaterThan(0.1)
    }))

  test("a PEFT folder holds it as a sequence classifier's, and gives it back", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-score-"))
    try {
      const expected = await withModel(async ({ model }) => {
        await savePeftAdapter(model, folder, loraConfigOf(config), "base")
        return (await hostOutputs(model, buildMicroBatch(units), { logprobs: false, values: true })).values!
      })
      const raw = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8")) as Record<string, unknown>
      expect(raw).toMatchObject({ task_type: "SEQ_CLS", modules_to_save: ["score"] })
      expect(readPeftConfig(folder)).toMatchObject({ scoreHead: true, config: { modulesToSave: [] } })
      using model = tinyFiles("tied").build(engine)
      expect(() => model.scoreHead).toThrow("no score head")
      expect(loadPeftAdapter(model, folder).scoreHead).toBe(true)
      expect(model.trainables()).toHaveLength(0)
      // Opened without training, it is saved again with its head.
      await savePeftAdapter(model, join(folder, "again"), loraConfigOf(config), "base")
      const again = readSafetensors(join(folder, "again", "adapter_model.safetensors")).tensors.map(({ name }) => name)
      expect(again).toContain("base_model.model.score.weight")
      expect((await hostOutputs(model, buildMicroBatch(units), { logprobs: false, values: true })).values).toEqual(
        expected,
      )
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
