/** Measures kernels of the CPU backend against the limits of the machine; prints one figure a line as JSON. Options: --threads, --rounds, --quick, --filter <word of a group>. */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { isSlothError } from "@sloth/core"
import { Engine } from "@sloth/tensor"
import type { Line } from "../lib/figures.ts"
import { attentions, loraProducts, losses, products, streaming, type CaseMaker } from "../lib/kernel-cases.ts"
import { measureCase } from "../lib/measure.ts"
import { flag, number, text } from "../lib/options.ts"
import { Peaks } from "../lib/peaks.ts"
import type { ShapeId } from "../lib/shapes.ts"

const quick = flag("quick")
const filter = text("filter")
const threads = number("threads", 2)
const options = {
  threads,
  rounds: number("rounds", quick ? 3 : 5),
  sampleSeconds: quick ? 0.02 : 0.04,
}
const all: readonly ShapeId[] = ["smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b"]
const small: readonly ShapeId[] = ["smollm2-135m"]
const formats = ["f32", "bf16", "f16", "q8_0", "q4_0", "q4_1"]
const makers: CaseMaker[] = [
  quick
    ? products({ shapes: small, formats: ["f32", "q4_1"], rows: [1, 8, 512] })
    : products({ shapes: all, formats, rows: [1, 8, 32, 512, 2048] }),
  loraProducts(quick ? small : all, "q4_1", 2048),
  attentions(quick ? 1024 : 2048),
  losses(small, quick ? ["q4_1"] : ["f32", "bf16", "q8_0", "q4_1"]),
  ...(quick ? [] : [losses(["qwen2.5-0.5b", "llama-3.2-1b"], ["q8_0"])]),
  streaming,
]

using peaks = await Peaks.open()
using backend = await createCpuBackend({ threads })
const engine = new Engine(backend)
for (const maker of makers)
  for (const c of maker(engine)) {
    if (filter !== undefined && !c.group.includes(filter)) continue
    let line: Line
    try {
      line = await measureCase(backend, peaks, c, options)
    } catch (error) {
      if (!isSlothError(error) || error.code !== "SLOTH_KERNEL_MISSING") throw error
      line = { section: "kernels", group: c.group, name: c.name, missing: error.message }
    }
    console.log(JSON.stringify(line))
  }
