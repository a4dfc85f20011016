import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  ggufExporters,
  ggufLoraExporter,
  opinionOf,
  peftExporter,
  safetensorsExporters,
  type Exporter,
  type TrainedModel,
} from "@sloth/export"
import { attachLora, openModelFiles, type CausalLM, type LoraConfig, type ModelFiles } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { describeExporter } from "@sloth/testing"
import { fill } from "./support/smollm2.ts"
import { LLAMA_CPP_ABSENT, llamaCpp, llamaCppPresent } from "./support/llama-cpp.ts"
import { writeRandomNano } from "./support/random-nano.ts"

const engine = new Engine(createReferenceBackend())
let folder = ""
let files: ModelFiles
const texts = [
  Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % 2000),
  Array.from({ length: 17 }, (_, i) => (i * 101 + 5) % 2000),
]
const lora: LoraConfig = {
  rank: 4,
  alpha: 8,
  dropout: 0,
  targets: "all-linear",
  rankStabilized: false,
  modulesToSave: [],
}

/** A model with an adapter that changes what it says. */
const trained = (config: LoraConfig = lora, on = engine): TrainedModel & { model: CausalLM } => {
  const model = files.build(on)
  attachLora(model, config, 3)
  for (const t of model.trainables()) if (t.outer) t.tensor.write(fill(t.name, t.tensor.size, 0.1))
  return { model, files, lora: config, base: "org/base", texts }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "sloth-export-"))
  files = await writeRandomNano(join(folder, "base"))
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const smallDisk = process.env["SLOTH_TEST_FULL_DISK"]
const exporters: readonly Exporter[] = [peftExporter, ggufLoraExporter, ...safetensorsExporters, ...ggufExporters]

for (const e of exporters)
  describeExporter(e.name, () => e, {
    trained: (on) => Promise.resolve(trained(lora, on)),
    inspect: ({ verification }) => expect(verification.tensors).toBe(e.adapterOnly ? 28 : 20),
    ...(smallDisk === undefined ? {} : { fullDisk: smallDisk }),
  })

describe("every exporter", () => {
  for (const e of exporters)
    test(`${e.name} writes, reads back and compares`, async () => {
      const t = trained()
      using model = t.model
      const to = join(folder, `out-${e.name}${e.extension}`)
      const before = await opinionOf(model, texts)
      const report = await e.export(t, to)
      expect(report.format).toBe(e.name)
      expect(report.verification.tokens).toBe(39 + 16)
      expect(report.bytes).toBeGreaterThan(1000)
      expect(existsSync(to)).toBe(true)
      // The comparison is not with a model that forgot its adapter.
      using base = files.build(engine)
      const plain = await opinionOf(base, texts)
      const changed = Math.max(...before.logprobs[0]!.map((lp, i) => Math.abs(lp - plain.logprobs[0]![i]!)))
      expect(changed).toBeGreaterThan(20 * Math.min(report.verification.largest, 0.05))
      expect(readdirSync(folder).filter((n) => n.includes("partial"))).toEqual([])
    })

  test("a sharded export is read back whole", async () => {
    const t = trained()
    using _ = t.model
    const to = join(folder, "sharded")
    await safetensorsExporters[2].export(t, to, { maxShardBytes: 200_000 })
    expect(readdirSync(to).filter((n) => n.endsWith(".safetensors")).length).toBeGreaterThan(1)
    expect((await openModelFiles(to, [llamaFamily])).weights.size).toBe(t.model.weights.size)
  })

  test("a rank-stabilized scale survives both adapter formats", async () => {
    const t = trained({ ...lora, rankStabilized: true })
    using _ = t.model
    expect((await peftExporter.export(t, join(folder, "rs"))).verification.largest).toBeLessThan(1e-4)
    expect((await ggufLoraExporter.export(t, join(folder, "rs.gguf"))).verification.largest).toBeLessThan(1e-4)
  })

  test("what is no export is not overwritten, and a failed check leaves nothing behind", async () => {
    const t = trained()
    using _ = t.model
    const to = join(folder, "precious")
    const { mkdirSync } = await import("node:fs")
    mkdirSync(to)
    writeFileSync(join(to, "diary.txt"), "mine")
    const code = (p: Promise<unknown>) =>
      p.then(
        () => "none",
        (e: { code: string }) => e.code,
      )
    expect(await code(peftExporter.export(t, to))).toBe("SLOTH_EXPORT_TARGET")
    expect(readFileSync(join(to, "diary.txt"), "utf8")).toBe("mine")
    expect(await code(ggufExporters[0].export(t, to))).toBe("SLOTH_EXPORT_TARGET")
    expect(await code(peftExporter.export({ ...t, lora: undefined }, join(folder, "none")))).toBe(
      "SLOTH_EXPORT_NO_ADAPTER",
    )
    // An exporter that writes wrong weights is caught: here the tokenizer's model is swapped for one with other weights while writing.
    const other = await writeRandomNano(join(folder, "other"), { rms_norm_eps: 0.5 })
    expect(await code(peftExporter.export({ ...t, files: other }, join(folder, "wrong")))).toBe("SLOTH_EXPORT_VERIFY")
    expect(existsSync(join(folder, "wrong"))).toBe(false)
  })
})

if (!llamaCppPresent) console.log(`(skip) ${LLAMA_CPP_ABSENT}`)
describe.skipIf(!llamaCppPresent)("llama.cpp says what Sloth says", () => {
  const compare = async (model: string, adapter: string | undefined, allowed: number) => {
    const t = trained()
    using m = t.model
    const ours = await opinionOf(m, texts)
    const theirs = llamaCpp({ model, lora: adapter, texts, prompt: "Hello 42, what's   up?\nЖук <|im_start|>user" })
    let largest = 0
    for (const [i, lp] of ours.logprobs.entries())
      for (const [j, v] of lp.entries()) largest = Math.max(largest, Math.abs(v - theirs.logprobs[i]![j + 1]!))
    expect(largest).toBeLessThan(allowed)
    expect(theirs.prompt).toEqual(files.tokenizer.encode("Hello 42, what's   up?\nЖук <|im_start|>user"))
  }
  // The project's bars: f32 computes the same sums in another order; f16 rounds the weights, and llama.cpp then the activations, to 11 bits.
  test("merged GGUF, f32", async () => {
    const t = trained()
    const to = join(folder, "llama-f32.gguf")
    await ggufExporters[3].export(t, to)
    t.model[Symbol.dispose]()
    await compare(to, undefined, 1e-3)
  }, 60_000)
  test("merged GGUF, f16", async () => {
    const t = trained()
    const to = join(folder, "llama-f16.gguf")
    await ggufExporters[1].export(t, to)
    t.model[Symbol.dispose]()
    await compare(to, undefined, 2e-2)
  }, 60_000)
  test("base GGUF with a GGUF LoRA", async () => {
    const t = trained()
    const plain = { ...t, model: files.build(engine), lora: undefined }
    const base = join(folder, "llama-base.gguf")
    await ggufExporters[3].export(plain, base)
    plain.model[Symbol.dispose]()
    const adapter = join(folder, "llama-lora.gguf")
    await ggufLoraExporter.export(t, adapter)
    t.model[Symbol.dispose]()
    await compare(base, adapter, 1e-3)
  }, 60_000)
})
