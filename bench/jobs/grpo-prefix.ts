/**
 * The update of a GRPO step of SmolLM2-135M with the prompt shared by its completions and with a copy of it for each, in turn. Prints a line of JSON. Options: --prompt, --group,
 * --completion, --rounds, --threads.
 */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { sampledUnits, type SampledCompletion, type SampledUnit } from "@sloth/rl"
import { Engine } from "@sloth/tensor"
import { attachGoldenLora } from "../../tests/support/smollm2.ts"
import { gradientDistance, groupPass, withOldLogprobs } from "../lib/group-pass.ts"
import { number } from "../lib/options.ts"
import { smollm2 } from "../lib/shapes.ts"

const prompt = Array.from({ length: number("prompt", 512) }, (_, t) => 100 + ((t * 131) % 40000))
const group = number("group", 8)
const length = number("completion", 128)
const rounds = number("rounds", 2)
const engine = new Engine(await createCpuBackend({ threads: number("threads", 2) }))
const { model } = await smollm2(engine)
attachGoldenLora(model, 0.02)
const samples = Array.from({ length: group }, (_, k) => ({
  tokens: Array.from({ length }, (_, t) => 100 + ((k * 7919 + t * 977) % 40000)),
  advantage: Math.sin(k + 1),
}))
const budget = prompt.length + group * length
const together = (all: readonly SampledCompletion[]): SampledUnit[] => sampledUnits(prompt, all, 0, budget)

const moved = withOldLogprobs(samples, (await groupPass(model, together(samples))).logprobs)
const shared = together(moved)
const apart = moved.flatMap((sample) => sampledUnits(prompt, [sample], 0))
const times: { shared: number[]; apart: number[] } = { shared: [], apart: [] }
let [lossDifference, gradientDifference, worstTensor] = [0, 0, 0]
for (let round = 0; round < rounds; round++) {
  const [a, b] = [await groupPass(model, shared), await groupPass(model, apart)]
  times.shared.push(a.seconds)
  times.apart.push(b.seconds)
  lossDifference = Math.max(lossDifference, Math.abs(a.loss - b.loss))
  const distance = gradientDistance(a.gradients, b.gradients)
  gradientDifference = Math.max(gradientDifference, distance.all)
  worstTensor = Math.max(worstTensor, distance.worst)
}
console.log(JSON.stringify({ ...times, lossDifference, gradientDifference, worstTensor }))
process.exit(0)
