import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  allowedDifference,
  ggufExporters,
  ggufLoraExporter,
  opinionOf,
  peftExporter,
  safetensorsExporters,
  type Exporter,
  type TrainedModel,
} from "@sloth/export"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { DEFAULT_LORA, openModelFiles } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { Engine } from "@sloth/tensor"
import { goldenJson } from "../../tests/support/golden.ts"
import { attachGoldenLora, openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "../../tests/support/smollm2.ts"
import { atMost, missed, type ParityContext } from "../lib/check.ts"
import { LLAMA_ABSENT, peerLlama, peerPython, PYTHON_ABSENT, root, runJob } from "../lib/child.ts"

/** Peers compute little here; on one thread they do not wait for each other's threads when the machine is busy. */
const PEER_THREADS = "1"
/** The bars of exports, in nats: the same numbers in another program, and 16-bit files against the model in memory. */
const SAME = 1e-3
const SIXTEEN = 2e-2

type Logprobs = readonly (readonly (number | null)[])[]
type Ours = readonly ArrayLike<number>[]
type Answer = { readonly logprobs: Logprobs } | { readonly error: string }

const named = (list: readonly Exporter[], name: string): Exporter => {
  const found = list.find((e) => e.name === name)
  if (found === undefined) throw new Error(`there is no exporter ${name}`)
  return found
}

/** Largest difference of log-probs in nats, Infinity when one is missing; ours begins with the second token. */
const largest = (ours: Ours, theirs: Logprobs): number => {
  let worst = 0
  for (const [i, row] of ours.entries())
    for (let j = 0; j < row.length; j++) {
      const d = Math.abs(row[j]! - (theirs[i]?.[j + 1] ?? Number.NaN))
      worst = Number.isNaN(d) ? Number.POSITIVE_INFINITY : Math.max(worst, d)
    }
  return worst
}
const withFirst = (ours: Ours): Logprobs => ours.map((row) => [null, ...Array.from(row)])
const figure = (value: number): string => value.toExponential(1)

/**
 * What is written, read by the programs it is written for. A 16-bit file is looked at in three ways: what rounding the weights costs by itself, in memory; whether another
 * program that computes in f32 finds the same numbers in the file; and what a program adds that computes in 16 bits itself. Only the second is a matter of the exporter.
 */
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
    const tuned: Ours = (await opinionOf(model, texts)).logprobs
    const untuned: Ours = (await opinionOf(plainModel, texts)).logprobs
    const moves = `the adapter moves log-probs by up to ${largest(tuned, withFirst(untuned)).toFixed(2)}`
    const textFile = join(folder, "texts.json")
    writeFileSync(textFile, JSON.stringify(texts))

    const python = peerPython()
    if (python === undefined) add({ what: "exports in transformers and PEFT", skipped: PYTHON_ABSENT })
    const llama = peerLlama()
    if (llama === undefined) add({ what: "GGUF and GGUF LoRA in llama.cpp", skipped: LLAMA_ABSENT })
    const transformers = async (words: readonly string[], gguf = smollm2Path!): Promise<Answer | undefined> => {
      if (python === undefined) return undefined
      const r = await runJob<{ logprobs: Logprobs }>(
        python,
        [join(root, "bench/peers/logprobs.py"), "--texts", textFile, "--threads", PEER_THREADS, ...words],
        { env: { SLOTH_TEST_MODEL_GGUF: gguf } },
      )
      return r.ok ? { logprobs: r.values.at(-1)!.logprobs } : { error: r.error }
    }
    const llamaCpp = async (gguf: string, lora?: string): Promise<Answer | undefined> => {
      if (llama === undefined) return undefined
      const request = join(folder, "request.json")
      writeFileSync(request, JSON.stringify({ model: gguf, lora, texts, threads: Number(PEER_THREADS) }))
      const r = await runJob<{ logprobs: Logprobs }>("node", [join(root, "bench/peers/llama-logprobs.mjs"), request], {
        cwd: llama,
      })
      return r.ok ? { logprobs: r.values.at(-1)!.logprobs } : { error: r.error }
    }
    /** A line about an answer; `parts` says what a miss is made of, where the format or the reader cannot reach the bar. */
    const judge = (
      what: string,
      answer: Answer | undefined,
      ours: Ours,
      bar: number,
      options: { readonly note?: string; readonly parts?: (theirs: Logprobs) => string } = {},
    ): void => {
      if (answer === undefined) return
      if ("error" in answer) return add({ what, value: answer.error, bar: `≤ ${bar} nats`, ok: false })
      const value = largest(ours, answer.logprobs)
      const line = options.parts === undefined ? atMost : missed
      add(line(what, value, bar, " nats", options.parts?.(answer.logprobs) ?? options.note))
    }

    say("adapter in PEFT")
    await peftExporter.export(trained, join(folder, "adapter"))
    judge(
      "adapter in PEFT on the base model",
      await transformers(["--adapter", join(folder, "adapter")]),
      tuned,
      SAME,
      { note: moves },
    )
    for (const type of ["f32", "f16", "bf16"] as const) {
      if (quick && type !== "f32") continue
      const safetensors = join(folder, `merged-${type}`)
      const gguf = join(folder, `merged-${type}.gguf`)
      say(`merged ${type}`)
      await named(safetensorsExporters, `safetensors-${type}`).export(trained, safetensors)
      await named(ggufExporters, `gguf-${type}`).export(trained, gguf)
      if (type === "f32") {
        judge("merged safetensors (f32) in transformers", await transformers(["--model", safetensors]), tuned, SAME)
        judge("merged GGUF (f32) in llama.cpp", await llamaCpp(gguf), tuned, SAME)
      } else {
        // The model in memory after the same rounding. That a file holds exactly these weights the exporter has compared bit for bit.
        using rounded = (await openModelFiles(safetensors, [llamaFamily])).build(engine)
        const same: Ours = (await opinionOf(rounded, texts)).logprobs
        const rounding = largest(tuned, withFirst(same))
        const bits = type === "f16" ? 11 : 8
        add(
          (type === "f16" || rounding > allowedDifference(type).largest ? atMost : missed)(
            `${type}: what rounding the weights costs, in memory`,
            rounding,
            SIXTEEN,
            " nats",
            type === "f16"
              ? "11 significant bits"
              : "8 significant bits, f16 has 11: 8 times coarser; use f16 where it matters",
          ),
        )
        judge(
          `merged safetensors (${type}) in transformers at f32, against the same rounding`,
          await transformers(["--model", safetensors]),
          same,
          SAME,
        )
        judge(
          `merged GGUF (${type}) in transformers at f32, read by gguf-py, against the same rounding`,
          await transformers([], gguf),
          same,
          SAME,
        )
        const wide = join(folder, "wide.gguf")
        await named(ggufExporters, "gguf-f32").export({ ...plain, model: rounded }, wide)
        judge(
          `merged GGUF (${type}), its numbers widened to f32, in llama.cpp, against the same rounding`,
          await llamaCpp(wide),
          same,
          SAME,
        )
        rmSync(wide)
        const parts = (reader: string) => (theirs: Logprobs) =>
          `rounding the weights ${figure(rounding)}, ${reader} rounding activations to ${bits} bits ${figure(largest(same, theirs))}`
        judge(
          `merged GGUF (${type}) in llama.cpp, which rounds activations to ${type} too`,
          await llamaCpp(gguf),
          tuned,
          SIXTEEN,
          type === "f16" ? { note: `rounding the weights ${figure(rounding)}` } : { parts: parts("llama.cpp") },
        )
        judge(
          `merged safetensors (${type}) in transformers at ${type}`,
          await transformers(["--model", safetensors, "--dtype", type === "f16" ? "float16" : "bfloat16"]),
          tuned,
          SIXTEEN,
          { parts: parts("transformers") },
        )
      }
      rmSync(safetensors, { recursive: true })
      rmSync(gguf)
    }

    if (llama === undefined) return
    say("GGUF LoRA")
    const base = join(folder, "base-f32.gguf")
    const adapter = join(folder, "adapter.gguf")
    await named(ggufExporters, "gguf-f32").export(plain, base)
    await ggufLoraExporter.export(trained, adapter)
    judge("GGUF LoRA on the base GGUF (f32) in llama.cpp", await llamaCpp(base, adapter), tuned, SAME, { note: moves })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
