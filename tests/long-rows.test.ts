import { expect, setDefaultTimeout, test } from "bun:test"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { attachLora, CausalLM, packedContext, randomWeights, type PackedOptions } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { Engine, linearCrossEntropy, ModuleBuilder, ROWS_AT_ONCE, SequenceLayout } from "@sloth/tensor"

setDefaultTimeout(120_000)

const backend = await createCpuBackend({ threads: 2 }).catch((error: unknown) => String(error))
const missing = typeof backend === "string" ? backend : undefined

// Enough rows for three pieces, in texts that cost attention little.
const TEXT = 300
const TEXTS = 12
const TOKENS = TEXT * TEXTS
const config = llamaFamily.fromHuggingFace({
  architectures: ["LlamaForCausalLM"],
  vocab_size: 256,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
})

/** Losses and gradients of a pass in which every row but the last of a text is scored. */
const gradients = async (engine: Engine, options: PackedOptions): Promise<Float32Array[]> => {
  using model = new CausalLM(llamaFamily, config, new ModuleBuilder(engine, randomWeights(engine, 3, 0.1)))
  attachLora(
    model,
    { rank: 8, alpha: 16, dropout: 0.1, targets: "all-linear", rankStabilized: false, modulesToSave: [] },
    1,
  )
  for (const t of model.trainables())
    if (t.outer) engine.backend.kernels.randomNormal(t.tensor.handle, 0, 0.1, t.tensor.size, 5, 9)
  const ids = Int32Array.from({ length: TOKENS }, (_, i) => (i * 7919 + 13) % config.vocab)
  const losses = engine.scope(() => {
    const { result, tape } = engine.record(() => {
      const context = packedContext(engine, SequenceLayout.fromLengths(Array<number>(TEXTS).fill(TEXT)), {
        ...options,
        dropout: { seed: 11, step: 3 },
      })
      const targets = engine.from(Int32Array.from(ids, (_, i) => ids[(i + 1) % TOKENS]!))
      const coef = engine.from(new Float32Array(TOKENS).fill(1 / TOKENS))
      return linearCrossEntropy(
        model.hidden(context, engine.from(ids)),
        model.head.weight.tensor,
        targets,
        coef,
        model.head,
      )
    })
    tape.backward([{ tensor: result }])
    return result
  })
  const read = [(await losses.readFloats()).slice()]
  losses.dispose()
  for (const t of model.trainables()) read.push((await t.tensor.grad!.readFloats()).slice())
  return read
}

test.skipIf(missing !== undefined)("what comes after attention gives the same in pieces of rows", async () => {
  using engine = new Engine(backend as Exclude<typeof backend, string>)
  const [losses, ...whole] = await gradients(engine, { policy: "recompute" })
  const ways: PackedOptions[] = [
    { policy: "checkpoint", rowsAtOnce: TOKENS },
    { policy: "checkpoint" },
    { policy: "spill" },
    { policy: "spill", rowsAtOnce: 1001 },
    { policy: "checkpoint", rowsAtOnce: 53 },
  ]
  for (const way of ways) {
    const [again, ...got] = await gradients(engine, way)
    // Also where a piece begins inside a block of random words: masks and rows are the same bits.
    expect(again).toEqual(losses!)
    const pieces = Math.ceil(TOKENS / (way.rowsAtOnce ?? ROWS_AT_ONCE))
    for (const [i, g] of got.entries()) {
      if (pieces === 1) {
        expect(g).toEqual(whole[i]!)
        continue
      }
      // A gradient of a weight is a sum over tokens in blocks of 64, or in the pieces and then in these. A sum of n rounded additions is off by at most n roundings of the
      // largest partial sum and by about sqrt(n) of them in the mean; 4 times that holds for every element. Blocks of 64 rows are added within a piece, pieces after that.
      const additions = TOKENS / 64 + pieces
      const scale = Math.max(...whole[i]!.map(Math.abs))
      const worst = g.reduce((m, v, k) => Math.max(m, Math.abs(v - whole[i]![k]!)), 0)
      expect(worst).toBeLessThan(4 * Math.sqrt(additions) * 2 ** -24 * scale)
    }
  }
  // Pieces must be pieces: nothing as wide as the MLP of all rows is alive at once.
  const peak = async (options: PackedOptions): Promise<number> => {
    engine.backend.memory.resetPeak()
    await gradients(engine, options)
    return engine.backend.memory.stats().peakBytes
  }
  const wide = TOKENS * config.intermediate * 4
  expect(
    (await peak({ policy: "checkpoint", rowsAtOnce: TOKENS })) - (await peak({ policy: "checkpoint" })),
  ).toBeGreaterThan(wide)
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
})
