import { createCpuBackend } from "@sloth/kernels-cpu"
import { Engine } from "@sloth/tensor"
import { preferenceDifference, PREFERENCE_METHODS } from "../../tests/support/preference.ts"
import { openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "../../tests/support/smollm2.ts"
import { atMost, type ParityContext } from "../lib/check.ts"

/** Preference methods and a reward model against TRL's trainers, 20 LoRA steps of SmolLM2-135M on the same rows. */
export const preference = async ({ quick, threads, add, say }: ParityContext): Promise<void> => {
  if (smollm2Path === undefined) return add({ what: "preference methods against TRL", skipped: SMOLLM2_ABSENT })
  using engine = new Engine(await createCpuBackend({ threads }))
  const files = await openSmollm2()
  const steps = quick ? 4 : 20
  for (const method of PREFERENCE_METHODS) {
    say(`${method}: ${steps} steps`)
    const d = await preferenceDifference(engine, files, method, { steps })
    const { double } = d
    const note = `gradient norm ${d.gradNorm.toExponential(1)} apart${double === undefined ? "" : `; from TRL in float64 ours is ${double.ours.toExponential(1)}, TRL's own f32 ${double.theirs.toExponential(1)}`}`
    add(atMost(`${method}: loss of each of ${d.steps} steps against TRL, largest difference`, d.loss, 1e-3, "", note))
    add(atMost(`${method}: reward margins of each step, largest difference`, d.margins, 1e-3))
    if (double !== undefined)
      add(
        atMost(
          `${method}: gradient norm against TRL in float64, steps without the pair that multiplies rounding, relative`,
          double.calm,
          1e-4,
        ),
      )
  }
  say("kto in micro-batches")
  const split = await preferenceDifference(engine, files, "kto", { steps, tokenBudget: 128 })
  add(
    atMost(
      `kto, each step in ${split.microBatches} micro-batches: loss and margins, largest difference`,
      Math.max(split.loss, split.margins),
      1e-3,
    ),
  )
}
