import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  ggufExporters,
  ggufLoraExporter,
  opinionOf,
  peftExporter,
  safetensorsExporters,
  type TrainedModel,
} from "@sloth/export"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { DEFAULT_LORA } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import { goldenJson } from "../../tests/support/golden.ts"
import { attachGoldenLora, openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "../../tests/support/smollm2.ts"
import { atMost, type ParityContext } from "../lib/check.ts"
import { LLAMA_ABSENT, peerLlama, peerPython, PYTHON_ABSENT, root, runJob } from "../lib/child.ts"

type Logprobs = readonly (readonly (number | null)[])[]

const named = <T extends { readonly name: string }>(list: readonly T[], name: string): T => {
  const found = list.find((e) => e.name === name)
  if (found === undefined) throw new Error(`there is no exporter ${name}`)
  return found
}

/** What is written, read by the programs it is written for. */
export const exports_ = async ({ quick, threads, add, say }: ParityContext): Promise<void> => {
  if (smollm2Path === undefined) return add({ what: "exports", skipped: SMOLLM2_ABSENT })
  mkdirSync(join(root, ".cache"), { recursive: true })
  const folder = mkdtempSync(join(tmpdir(), "sloth-parity-"))
  try {
    using engine = new Engine(await createCpuBackend({ threads }))
    const files = await openSmollm2()
    const { texts: golden } = goldenJson<{ texts: { tokens: number[] }[] }>("smollm2", "logprobs.json")
    const texts = golden.slice(0, quick ? 2 : 4).map((t) => t.tokens.slice(0, 96))
    using model = files.build(engine)
    attachGoldenLora(model, 0.02)
    const trained: TrainedModel = {
      model,
      files,
      lora: { ...DEFAULT_LORA, rank: 16, alpha: 32 },
      base: "SmolLM2-135M-Instruct",
      texts,
    }
    using plainModel = files.build(engine)
    const plain: TrainedModel = { ...trained, model: plainModel, lora: undefined }
    const tuned = (await opinionOf(model, texts)).logprobs
    const untuned = (await opinionOf(plainModel, texts)).logprobs
    let shift = 0
    for (const [i, row] of tuned.entries())
      for (const [j, v] of row.entries()) shift = Math.max(shift, Math.abs(v - untuned[i]![j]!))
    const compare = (what: string, theirs: Logprobs, bar: number): void => {
      let worst = 0
      for (const [i, row] of tuned.entries())
        for (const [j, v] of row.entries()) worst = Math.max(worst, Math.abs(v - (theirs[i]![j + 1] ?? Number.NaN)))
      add(
        atMost(
          what,
          Number.isNaN(worst) ? Number.POSITIVE_INFINITY : worst,
          bar,
          " nats",
          `the adapter moves log-probs by up to ${shift.toFixed(2)}`,
        ),
      )
    }
    const textFile = join(folder, "texts.json")
    writeFileSync(textFile, JSON.stringify(texts))

    const python = peerPython()
    if (python === undefined) add({ what: "adapter in PEFT, merged model in transformers", skipped: PYTHON_ABSENT })
    else {
      const ask = async (what: string, words: readonly string[], bar: number): Promise<void> => {
        say(what)
        const r = await runJob<{ logprobs: Logprobs }>(
          python,
          [join(root, "bench/peers/logprobs.py"), "--texts", textFile, "--threads", String(threads), ...words],
          { env: { SLOTH_TEST_MODEL_GGUF: smollm2Path! } },
        )
        if (r.ok) compare(what, r.values.at(-1)!.logprobs, bar)
        else add({ what, value: r.error, bar: `≤ ${bar} nats`, ok: false })
      }
      await peftExporter.export(trained, join(folder, "adapter"))
      await ask("adapter in PEFT on the base model: largest difference", ["--adapter", join(folder, "adapter")], 1e-3)
      for (const [type, bar] of [
        ["f32", 1e-3],
        ["bf16", 2e-2],
        ["f16", 2e-2],
      ] as const) {
        if (quick && type !== "f32") continue
        const to = join(folder, `merged-${type}`)
        await named<(typeof safetensorsExporters)[number]>(safetensorsExporters, `safetensors-${type}`).export(
          trained,
          to,
        )
        await ask(`merged safetensors (${type}) in transformers: largest difference`, ["--model", to], bar)
        rmSync(to, { recursive: true })
      }
    }

    const llama = peerLlama()
    if (llama === undefined) return add({ what: "GGUF and GGUF LoRA in llama.cpp", skipped: LLAMA_ABSENT })
    const ask = async (what: string, gguf: string, lora: string | undefined, bar: number): Promise<void> => {
      say(what)
      const request = join(folder, "request.json")
      writeFileSync(request, JSON.stringify({ model: gguf, lora, texts, threads }))
      const r = await runJob<{ logprobs: Logprobs }>("node", [join(root, "bench/peers/llama-logprobs.mjs"), request], {
        cwd: llama,
      })
      if (r.ok) compare(what, r.values.at(-1)!.logprobs, bar)
      else add({ what, value: r.error, bar: `≤ ${bar} nats`, ok: false })
    }
    for (const [type, bar] of [
      ["f32", 1e-3],
      ["f16", 2e-2],
      ["bf16", 2e-2],
    ] as const) {
      if (quick && type !== "f32") continue
      const to = join(folder, `merged-${type}.gguf`)
      await named<(typeof ggufExporters)[number]>(ggufExporters, `gguf-${type}`).export(trained, to)
      await ask(`merged GGUF (${type}) in llama.cpp: largest difference`, to, undefined, bar)
      rmSync(to)
    }
    const base = join(folder, "base-f32.gguf")
    const adapter = join(folder, "adapter.gguf")
    await named<(typeof ggufExporters)[number]>(ggufExporters, "gguf-f32").export(plain, base)
    await ggufLoraExporter.export(trained, adapter)
    await ask("GGUF LoRA on the base GGUF (f32) in llama.cpp: largest difference", base, adapter, 1e-3)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
