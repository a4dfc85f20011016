/**
 * Pretrains nano with Sloth's own trainer, from random weights, and writes model/model.safetensors (f16) and loss-curve.json.
 *
 *   bun packages/nano/scripts/pretrain-data.ts --rows 200000 --seed 1 --out .cache/nano/train.jsonl
 *   bun packages/nano/scripts/pretrain-data.ts --rows 1000 --seed 2 --out .cache/nano/valid.jsonl
 *   bun packages/nano/scripts/pretrain.ts                    # about an hour on 2 cores; resumes an interrupted run
 *
 * `--steps N` shortens the run (the schedule with it), `--threads N`, `--run DIR`.
 */
import { createHash } from "node:crypto"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { readEvents } from "@sloth/core"
import { safetensorsExporters } from "@sloth/export"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { CausalLM, openModelFiles, randomWeights, writeSafetensorsFolder } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { Engine, ModuleBuilder } from "@sloth/tensor"
import { openTrainData, pretraining, resolveTrainConfig, train } from "@sloth/train"
import { nanoFiles } from "../src/files.ts"

const { values } = parseArgs({
  options: {
    steps: { type: "string" },
    threads: { type: "string" },
    run: { type: "string", default: "runs/nano-pretrain" },
  },
})
const recipe = JSON.parse(readFileSync(new URL("../pretrain.json", import.meta.url), "utf8")) as {
  data: { maxLength: number }
  initialisation: { seed: number }
  training: {
    rowsPerStep: number
    steps: number
    learningRate: number
    warmupSteps: number
    beta1: number
    beta2: number
    eps: number
    weightDecay: number
    clip: number
  }
}
const t = recipe.training
const folder = nanoFiles().model
const raw = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>
const shape = llamaFamily.fromHuggingFace(raw)
const engine = new Engine(
  await createCpuBackend(values.threads === undefined ? {} : { threads: Number(values.threads) }),
)

const config = {
  full: true,
  steps: Number(values.steps ?? t.steps),
  batch: t.rowsPerStep,
  maxLength: recipe.data.maxLength,
  mask: "all" as const,
  learningRate: t.learningRate,
  schedule: "cosine" as const,
  warmupSteps: t.warmupSteps,
  beta1: t.beta1,
  beta2: t.beta2,
  epsilon: t.eps,
  weightDecay: t.weightDecay,
  maxGradNorm: t.clip,
  tokenBudget: 4096,
  policy: "keep" as const,
  evalData: ".cache/nano/valid.jsonl",
  evalEvery: 200,
  saveEvery: 200,
  seed: recipe.initialisation.seed,
}

// The weights of the start are a model of their own: the exporter below needs files to name.
const scratch = mkdtempSync(join(tmpdir(), "nano-"))
for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
  writeFileSync(join(scratch, name), readFileSync(join(folder, name)))
writeFileSync(join(scratch, "config.json"), JSON.stringify(raw))
{
  using start = new CausalLM(
    llamaFamily,
    shape,
    new ModuleBuilder(engine, randomWeights(engine, recipe.initialisation.seed)),
  )
  await writeSafetensorsFolder(
    scratch,
    await Promise.all(
      [...start.weights.values()].map(async (ref) => {
        const data = await engine.backend.memory.read(ref.tensor.handle, 0, ref.tensor.size * 4)
        return { name: ref.name, dtype: "F32", shape: ref.shape, bytes: data.length, data }
      }),
    ),
  )
}
const files = await openModelFiles(scratch, [llamaFamily])
const data = await openTrainData(".cache/nano/train.jsonl", resolveTrainConfig(config), {
  tokenizer: files.tokenizer,
  cacheDir: ".cache/nano/prepared",
})
console.log(data.statement)
const started = performance.now()
const result = await train({
  engine,
  model: {
    ...files,
    fingerprint: createHash("sha256")
      .update(JSON.stringify([raw, recipe.initialisation]))
      .digest("hex"),
  },
  data,
  objective: pretraining,
  config,
  run: values.run,
  resume: existsSync(join(values.run, "config.json")),
  keepModel: true,
  measure: false,
  onEvent: (e) => {
    if (e.type === "step" && e.step % 10 === 0)
      console.log(
        `step ${e.step}/${config.steps}  loss ${e.loss.toFixed(3)}  norm ${e.gradNorm.toFixed(2)}  ${e.tokensPerSecond.toFixed(0)} tokens/s  ${((performance.now() - started) / 60000).toFixed(1)} min`,
      )
    else if (e.type === "eval") console.log(`eval ${JSON.stringify(e)}`)
  },
})
if (result.status !== "completed") process.exit(1)
const text = data.examples.slice(0, 4).map((e) => [...e.tokens.slice(0, 128)])
const out = join(scratch, "out")
const report = await safetensorsExporters[1].export(
  { model: result.model!, files, lora: undefined, base: "nano", texts: text },
  out,
)
console.log(`written, log-probs within ${report.verification.largest.toExponential(2)} nats of the model in memory`)
writeFileSync(join(folder, "model.safetensors"), readFileSync(join(out, "model.safetensors")))
const events = readEvents(join(result.run, "events.jsonl"))
writeFileSync(
  new URL("../loss-curve.json", import.meta.url),
  `${JSON.stringify({
    tokens: result.tokens,
    steps: events.flatMap((e) =>
      e.type === "step" && (e.step % 10 === 0 || e.step === 1) ? [[e.step, Number(e.loss.toFixed(4))]] : [],
    ),
    evaluations: events.flatMap((e) => (e.type === "eval" ? [[e.step, Number(e.loss.toFixed(4))]] : [])),
  })}\n`,
)
result.model![Symbol.dispose]()
rmSync(scratch, { recursive: true })
process.exit(0)
