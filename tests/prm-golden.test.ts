import { expect, test } from "bun:test"
import { join } from "node:path"
import { loadPeftAdapter, type Tokenizer } from "@sloth/model"
import { openSteps, processReward } from "@sloth/rl"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { buildMicroBatch, disposeOutputs, readOutputs, recordedOutputs, unitSize } from "@sloth/train"
import { floatsOf, goldenDir, goldenJson, relativeError } from "./support/golden.ts"
import { fill } from "./support/smollm2.ts"
import { buildTiny } from "./support/tiny.ts"

interface Golden {
  readonly rows: readonly object[]
  readonly forms: readonly {
    readonly lastStepOnly: boolean
    readonly loss: number
    readonly inputIds: readonly (readonly number[])[]
    readonly labels: readonly (readonly number[])[]
  }[]
}

const golden = goldenJson<Golden>("tiny", "prm.json")
const tensors = floatsOf(join(goldenDir, "tiny", "prm.safetensors"))

/** A token a character, by its code; 1 begins, as in the script. */
const tokenizer = {
  encode: (text: string) => Array.from(text, (c) => c.charCodeAt(0)),
  addBos: true,
  special: { bos: 1 },
} as unknown as Tokenizer

for (const { lastStepOnly, loss, inputIds, labels } of golden.forms)
  test(`a step of TRL's PRMTrainer, ${lastStepOnly ? "last steps" : "all steps"}: ids, labels, loss, gradients`, async () => {
    const data = await openSteps(golden.rows, { tokenizer })
    expect(data.examples.map(({ tokens }) => Array.from(tokens))).toEqual(inputIds as number[][])
    for (const [i, { ends, labels: own }] of data.examples.entries()) {
      const at = labels[i]!.flatMap((label, t) => (label === -100 ? [] : [t]))
      const kept = lastStepOnly ? 1 : ends.length
      expect(Array.from(ends.slice(-kept))).toEqual(at)
      expect(own.slice(-kept).map(Number)).toEqual(at.map((t) => labels[i]![t]!))
    }

    using engine = new Engine(createReferenceBackend())
    using model = buildTiny(engine, "untied")
    loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
    // One score is the difference of the classifier's two.
    const hidden = model.head.weight.shape.at(-1)!
    const head = fill("score.weight", 2 * hidden, 0.3)
    model.addScoreHead(
      0,
      Float32Array.from({ length: hidden }, (_, i) => head[hidden + i]! - head[i]!),
    )
    const settings = { lastStepOnly }
    const units = await processReward.prepare(data.examples, { settings, signal: undefined })
    const objective = processReward.loss(settings)
    if (objective.kind !== "values") throw new Error("a process reward model reads the score head")
    const batch = buildMicroBatch(units)
    const { outputs, tape } = recordedOutputs(model, batch, { logprobs: false, values: true }, {})
    const { values } = await readOutputs(outputs)
    const normaliser = units.reduce((n, unit) => n + unitSize(objective, unit), 0)
    const result = objective.compute({
      units,
      starts: batch.starts,
      indices: units.map((_, i) => i),
      normaliser,
      step: 1,
      values: values!,
    })
    engine.scope(() =>
      tape.backward([
        { tensor: outputs.values!, gradient: engine.from(Float32Array.from(result.dvalues), outputs.values!.shape) },
      ]),
    )
    disposeOutputs(outputs)
    // f32 against float64: sums of at most 80 products, and a loss of the size of 1.
    expect(result.loss).toBeCloseTo(loss, 5)
    for (const { name, tensor } of model.trainables()) {
      const expected = tensors.get(`${lastStepOnly ? "last" : "all"}.${name}`)
      expect(expected, name).toBeDefined()
      // As the other gradients of this model: 1e-4 of the tensor's own size.
      expect(relativeError(await tensor.grad!.readFloats(), expected!.values), name).toBeLessThan(1e-4)
    }
  })
