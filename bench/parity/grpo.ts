import { join } from "node:path"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { loadPeftAdapter } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import { goldenDir } from "../../tests/support/golden.ts"
import { grpoDifferences } from "../../tests/support/grpo.ts"
import { buildTiny } from "../../tests/support/tiny.ts"
import { atMost, type ParityContext } from "../lib/check.ts"

/** A step of GRPO on TRL's completions, on the native kernels: advantages, loss and gradients against TRL's in float64. */
export const grpo = async ({ threads, add, say }: ParityContext): Promise<void> => {
  using engine = new Engine(await createCpuBackend({ threads }))
  using model = buildTiny(engine, "untied")
  loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
  say("GRPO steps")
  const all = await grpoDifferences(model)
  const worst = (of: (difference: (typeof all)[number]) => number): number => Math.max(...all.map(of))
  const what = `GRPO step on TRL's completions, tiny untied, ${all.length} forms`
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
    ),
  )
}
