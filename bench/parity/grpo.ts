import { join } from "node:path"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { loadPeftAdapter } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import { goldenDir } from "../../tests/support/golden.ts"
import { grpoDifferences, type GrpoDifference } from "../../tests/support/grpo.ts"
import { onlineDifferences } from "../../tests/support/online-steps.ts"
import { attachGoldenLora, openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "../../tests/support/smollm2.ts"
import { buildTiny } from "../../tests/support/tiny.ts"
import { atMost, type ParityContext } from "../lib/check.ts"

/** The figures of a model's steps beside their bars. */
const report = (what: string, all: readonly GrpoDifference[], add: ParityContext["add"]): void => {
  const worst = (of: (difference: GrpoDifference) => number): number => Math.max(...all.map(of))
  const note = `${all[0]!.tensors} tensors; log-probs ${worst((d) => d.logprobs).toExponential(1)} apart`
  add(
    atMost(
      `${what}: advantages, largest difference`,
      worst((d) => d.advantages),
      1e-4,
    ),
  )
  add(
    atMost(
      `${what}: loss, relative`,
      worst((d) => d.loss),
      1e-4,
    ),
  )
  add(
    atMost(
      `${what}: LoRA gradients, worst relative error`,
      worst((d) => d.gradient),
      1e-4,
      "",
      note,
    ),
  )
}

/** Steps of GRPO on TRL's completions, on the native kernels: advantages, loss and gradients against TRL's in float64. */
export const grpo = async ({ threads, add, say }: ParityContext): Promise<void> => {
  using engine = new Engine(await createCpuBackend({ threads }))
  {
    using model = buildTiny(engine, "untied")
    loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
    say("GRPO steps")
    const all = await grpoDifferences(model)
    report(`GRPO step on TRL's completions, tiny untied, ${all.length} forms`, all, add)
    using teacher = buildTiny(engine, "tied")
    say("steps of other online methods")
    for (const { name, loss, gradient, tensors } of await onlineDifferences(model, teacher)) {
      add(atMost(`step of TRL's trainer, ${name}: loss, relative`, loss, 1e-5))
      add(
        atMost(
          `step of TRL's trainer, ${name}: gradients, worst relative error`,
          gradient,
          1e-5,
          "",
          `${tensors} tensors`,
        ),
      )
    }
  }
  if (smollm2Path === undefined)
    return add({ what: "GRPO step of SmolLM2-135M on TRL's completions", skipped: SMOLLM2_ABSENT })
  const files = await openSmollm2()
  using model = files.build(engine)
  attachGoldenLora(model, 0.02)
  say("GRPO steps of SmolLM2-135M")
  const all = await grpoDifferences(model, "smollm2")
  report(`GRPO step on TRL's completions, SmolLM2-135M, ${all.map(({ name }) => name).join(", ")}`, all, add)
}
