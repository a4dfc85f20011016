import { join } from "node:path"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { loadPeftAdapter } from "@sloth/model"
import { Engine, type ActivationPolicy } from "@sloth/tensor"
import { floatsOf, goldenDir, goldenJson, relativeError } from "../../tests/support/golden.ts"
import {
  attachGoldenLora,
  gradientDifference,
  greedyAgreement,
  logprobDifference,
  openSmollm2,
  SMOLLM2_ABSENT,
  smollm2Path,
} from "../../tests/support/smollm2.ts"
import { buildTiny, lossAndGradients, type Row } from "../../tests/support/tiny.ts"
import { atMost, exactly, type ParityContext } from "../lib/check.ts"

const POLICIES: readonly ActivationPolicy[] = ["keep", "recompute", "checkpoint"]

/** LoRA gradients of the tiny models on the native kernels against PyTorch's. */
export const tiny = async ({ threads, add, say }: ParityContext): Promise<void> => {
  using engine = new Engine(await createCpuBackend({ threads }))
  for (const name of ["untied", "tied", "llama3"]) {
    say(`gradients of tiny ${name}`)
    const golden = goldenJson<{ rows: Row[] }>("tiny", name, "golden.json")
    const tensors = floatsOf(join(goldenDir, "tiny", name, "golden.safetensors"))
    let worst = 0
    for (const policy of POLICIES)
      for (const split of [false, true]) {
        using model = buildTiny(engine, name)
        loadPeftAdapter(model, join(goldenDir, "tiny", name, "adapter"), { trainable: true })
        await lossAndGradients(model, golden.rows, { policy, split })
        for (const t of model.trainables())
          worst = Math.max(
            worst,
            relativeError(await t.tensor.grad!.readFloats(), tensors.get(`lora.grad.${t.name}`)!.values),
          )
      }
    add(atMost(`LoRA gradients, tiny ${name}, all policies, packed and split: worst relative error`, worst, 1e-4))
  }
}

/** Log-probs, greedy tokens and LoRA gradients of SmolLM2-135M against transformers and PEFT on the dequantised weights. */
export const smollm2 = async ({ quick, threads, add, say }: ParityContext): Promise<void> => {
  if (smollm2Path === undefined) return add({ what: "SmolLM2-135M against transformers", skipped: SMOLLM2_ABSENT })
  using engine = new Engine(await createCpuBackend({ threads }))
  const files = await openSmollm2()
  {
    using model = files.build(engine)
    const texts = quick ? 3 : 10
    say("log-probs")
    add(
      atMost(
        `log-probs, ${texts} texts of 200+ tokens: largest difference`,
        await logprobDifference(model, texts),
        2e-3,
        " nats",
      ),
    )
    const prompts = quick ? 2 : 10
    say("greedy tokens")
    const { equal, of } = await greedyAgreement(model, files.tokenizer, prompts)
    add(exactly(`64 greedy tokens equal, ${of} prompts`, `${equal} of ${of}`, `${of} of ${of}`))
  }
  using lora = files.build(engine)
  attachGoldenLora(lora, 0.02)
  const torch = goldenJson<Record<"float32" | "float64LogSoftmax", { worst: number }>>("smollm2", "lora-grad-f32.json")
  const theirs = `PyTorch f32 itself is ${torch.float32.worst.toExponential(1)} from the float64 gradients, ${torch.float64LogSoftmax.worst.toExponential(1)} with an exact log_softmax`
  const ways: readonly { policy?: ActivationPolicy; perPass?: number }[] = quick
    ? [{}, { policy: "recompute", perPass: 2 }]
    : [{}, { perPass: 1 }, { policy: "recompute", perPass: 2 }, { policy: "checkpoint" }]
  for (const way of ways) {
    const name = `${way.policy ?? "keep"}, ${way.perPass === undefined ? "packed" : `${way.perPass} rows a pass`}`
    say(`gradients, ${name}`)
    const d = await gradientDifference(lora, way)
    add(
      atMost(
        `LoRA gradients, 135M, ${d.tensors} tensors, ${name}: worst relative error against float64`,
        d.worst,
        1e-4,
        "",
        `loss ${d.loss.toExponential(1)} nats apart; ${theirs}`,
      ),
    )
  }
}
