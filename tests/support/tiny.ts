import { readFileSync } from "node:fs"
import { join } from "node:path"
import { CausalLM, fileWeights, packedContext, readSafetensors, type StoredWeight } from "@sloth/model"
import { llamaFamily, type LlamaConfig } from "@sloth/model-llama"
import {
  gatherRows,
  linearCrossEntropy,
  ModuleBuilder,
  SequenceLayout,
  type ActivationPolicy,
  type Engine,
  type Tensor,
} from "@sloth/tensor"
import { goldenDir } from "./golden.ts"

/** A row of the golden files. */
export interface Row {
  readonly tokens: readonly number[]
  readonly mask: readonly number[]
}

/** Builds one of the tiny golden Llamas. */
export const buildTiny = (engine: Engine, name: string): CausalLM<LlamaConfig> => {
  const folder = join(goldenDir, "tiny", name)
  const config = llamaFamily.fromHuggingFace(JSON.parse(readFileSync(join(folder, "config.json"), "utf8")))
  const table = new Map<string, StoredWeight>(
    readSafetensors(folder).tensors.map((entry) => [entry.name, { entry, interleavedHeadDim: undefined }]),
  )
  return new CausalLM(llamaFamily, config, new ModuleBuilder(engine, fileWeights(engine, table)))
}

/** Token-mean loss of rows as one packed pass, with gradients in the trainable tensors; every row of `rows` may go to its own micro-batch. */
export const lossAndGradients = async (
  model: CausalLM<LlamaConfig>,
  rows: readonly Row[],
  options: { policy?: ActivationPolicy; split?: boolean } = {},
): Promise<{ loss: number; scored: number }> => {
  const { engine } = model
  const scored = rows.reduce((n, r) => n + r.mask.slice(1).reduce((a, b) => a + b, 0), 0)
  let loss = 0
  for (const group of options.split === true ? rows.map((r) => [r]) : [rows]) {
    let nll: Tensor | undefined
    engine.scope(() => {
      const layout = SequenceLayout.fromLengths(group.map((r) => r.tokens.length))
      const picked: number[] = []
      const targets: number[] = []
      let start = 0
      for (const r of group) {
        for (let t = 1; t < r.tokens.length; t++)
          if (r.mask[t] === 1) {
            picked.push(start + t - 1)
            targets.push(r.tokens[t]!)
          }
        start += r.tokens.length
      }
      const { result, tape } = engine.record(() => {
        const ctx = packedContext(engine, layout, { policy: options.policy })
        const hidden = model.hidden(ctx, engine.from(Int32Array.from(group.flatMap((r) => r.tokens))))
        const h = gatherRows(hidden, engine.from(Int32Array.from(picked)))
        const coef = engine.from(new Float32Array(picked.length).fill(1 / scored))
        return linearCrossEntropy(h, model.head.weight.tensor, engine.from(Int32Array.from(targets)), coef, model.head)
      })
      tape.backward([{ tensor: result }])
      nll = engine.keep(result)
    })
    for (const v of await nll!.readFloats()) loss += v / scored
    nll!.dispose()
  }
  return { loss, scored }
}
