/**
 * One reward curve of GRPO on SmolLM2-135M with the prompts and settings of TRL's (tests/golden/grpo_curve.py), in a process of its own. Prints a line of JSON a step.
 * Options: --seed, --threads, --steps.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { defineReward, grpo } from "@sloth/rl"
import { Engine } from "@sloth/tensor"
import { train } from "@sloth/train"
import { goldenJson } from "../../tests/support/golden.ts"
import { openSmollm2 } from "../../tests/support/smollm2.ts"
import { shareOfCapitals, type CurveGolden } from "../lib/grpo-curve.ts"
import { number } from "../lib/options.ts"

const { settings, questions } = goldenJson<CurveGolden>("smollm2", "grpo-curve.json")
const files = await openSmollm2()
const engine = new Engine(await createCpuBackend({ threads: number("threads", 2) }))
const folder = mkdtempSync(join(tmpdir(), "sloth-grpo-curve-"))
try {
  await train({
    engine,
    model: files,
    data: { examples: questions.map(({ text, tokens }, row) => ({ tokens, prompt: text, columns: {}, row })) },
    objective: grpo,
    rewards: [defineReward({ name: "capitals", each: ({ completion }) => shareOfCapitals(completion) })],
    settings: {
      numGenerations: settings.group,
      maxCompletionLength: settings.completion,
      loss: settings.loss,
      beta: settings.beta,
      scaleRewards: settings.scale,
      temperature: settings.temperature,
    },
    config: {
      steps: number("steps", settings.steps),
      batch: settings.prompts,
      rank: settings.rank,
      alpha: settings.alpha,
      dropout: 0,
      learningRate: settings.learningRate,
      schedule: settings.schedule,
      weightDecay: 0,
      maxGradNorm: settings.maxGradNorm,
      order: settings.order,
      saveEvery: 0,
      seed: number("seed", 0),
    },
    measure: false,
    run: join(folder, "run"),
    onEvent: (event) => {
      if (event.type === "step")
        console.log(
          JSON.stringify({
            step: event.step,
            reward: event.metrics!["reward"],
            length: event.metrics!["completions/mean_length"],
            entropy: event.metrics!["entropy"],
            gradNorm: event.gradNorm,
            seconds: event.seconds,
          }),
        )
    },
  })
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exit(0)
