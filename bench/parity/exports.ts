import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
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
import { createCpuBackend } from "@sloth/kernels-cpu"
import { DEFAULT_LORA } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import { goldenJson } from "../../tests/support/golden.ts"
import { attachGoldenLora, openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "../../tests/support/smollm2.ts"
import { atMost, type ParityContext } from "../lib/check.ts"
import { LLAMA_ABSENT, peerLlama, peerPython, PYTHON_ABSENT, root, runJob } from "../lib/child.ts"

/** Peers compute little here; on one thread they do not wait for each other's threads when the machine is busy. */
const PEER_THREADS = "1"

type Logprobs = readonly (readonly (number | null)[])[]

const named = (list: readonly Exporter[], name: string): Exporter => {
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
    const compare = (what: string, theirs: Logprobs, bar: number, file?: number): void => {
      let worst = 0
      for (const [i, row] of tuned.entries())
        for (const [j, v] of row.entries()) worst = Math.max(worst, Math.abs(v - (theirs[i]![j + 1] ?? Number.NaN)))
      add(
        atMost(
          what,
          Number.isNaN(worst) ? Number.POSITIVE_INFINITY : worst,
          bar,
          " nats",
          `${file === undefined ? "" : `the file's own rounding ${file.toExponential(1)}; `}the adapter moves log-probs by up to ${shift.toFixed(2)}`,
        ),
      )
    }
    const textFile = join(folder, "texts.json")
    writeFileSync(textFile, JSON.stringify(texts))

    const python = peerPython()
    if (python === undefined) add({ what: "adapter in PEFT, merged model in transformers", skipped: PYTHON_ABSENT })
    else {
      const ask = async (what: string, words: readonly string[], bar: number, file?: number): Promise<void> => {
        say(what)
        const r = await runJob<{ logprobs: Logprobs }>(
          python,
          [join(root, "bench/peers/logprobs.py"), "--texts", textFile, "--threads", PEER_THREADS, ...words],
          { env: { SLOTH_TEST_MODEL_GGUF: smollm2Path! } },
        )
        if (r.ok) compare(what, r.values.at(-1)!.logprobs, bar, file)
        else add({ what, value: r.error, bar: `≤ ${bar} nats`, ok: false })
      }
      await peftExporter.export(trained, join(folder, "adapter"))
      await ask("adapter in PEFT on the base model: largest difference", ["--adapter", join(folder, "adapter")], 1e-3)
      for (const type of ["f32", "f16", "bf16"] as const) {
        if (quick && type !== "f32") continue
        const to = join(folder, `merged-${type}`)
        const { verification } = await named(safetensorsExporters, `safetensors-${type}`).export(trained, to)
        const { allowed, largest } = verification
        await ask(
          `merged safetensors (${type}) in transformers: largest difference`,
          ["--model", to],
          allowed.largest,
          largest,
        )
        rmSync(to, { recursive: true })
      }
    }

    const llama = peerLlama()
    if (llama === undefined) return add({ what: "GGUF and GGUF LoRA in llama.cpp", skipped: LLAMA_ABSENT })
    const ask = async (
      what: string,
      gguf: string,
      lora: string | undefined,
      bar: number,
      file?: number,
    ): Promise<void> => {
      say(what)
      const request = join(folder, "request.json")
      writeFileSync(request, JSON.stringify({ model: gguf, lora, texts, threads: Number(PEER_THREADS) }))
      const r = await runJob<{ logprobs: Logprobs }>("node", [join(root, "bench/peers/llama-logprobs.mjs"), request], {
        cwd: llama,
      })
      if (r.ok) compare(what, r.values.at(-1)!.logprobs, bar, file)
      else add({ what, value: r.error, bar: `≤ ${bar} nats`, ok: false })
    }
    for (const type of ["f32", "f16", "bf16"] as const) {
      if (quick && type !== "f32") continue
      const to = join(folder, `merged-${type}.gguf`)
      const { verification } = await named(ggufExporters, `gguf-${type}`).export(trained, to)
      const { allowed, largest } = verification
      await ask(`merged GGUF (${type}) in llama.cpp: largest difference`, to, undefined, allowed.largest, largest)
      rmSync(to)
    }
    const base = join(folder, "base-f32.gguf")
    const adapter = join(folder, "adapter.gguf")
    await named(ggufExporters, "gguf-f32").export(plain, base)
    await ggufLoraExporter.export(trained, adapter)
    await ask("GGUF LoRA on the base GGUF (f32) in llama.cpp: largest difference", base, adapter, 1e-3)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
