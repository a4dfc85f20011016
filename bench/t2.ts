import { Engine } from "@sloth/tensor"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { attachGoldenLora, openSmollm2, passes } from "../tests/support/smollm2.ts"
import { floatsOf, goldenDir, goldenJson, relativeError } from "../tests/support/golden.ts"
import { join } from "node:path"
const engine = new Engine(await createCpuBackend({ isa: process.argv[2] }))
const files = await openSmollm2()
const model = files.build(engine)
attachGoldenLora(model, 0.02)
const golden = goldenJson<any>("smollm2", "lora-grad.json")
const f = floatsOf(join(goldenDir, "smollm2", "lora-grad.safetensors"))
console.log((await passes(model, golden.rows)) - golden.loss)
const byName = new Map(model.trainables().map((t) => [t.name, t.tensor]))
const samples = f.get("samples")!.values
const out: any[] = []
for (const [i, { name, norm }] of golden.tensors.entries()) {
  const got = await byName.get(name)!.grad!.readFloats()
  const n = Math.abs(Math.sqrt(got.reduce((a: number, v: number) => a + v * v, 0)) / norm - 1)
  const picked = Float32Array.from({ length: 64 }, (_, k) => got[(k * 2654435761 + 12345) % got.length]!)
  const s = relativeError(picked, samples.subarray(i * 64, (i + 1) * 64))
  const full = golden.full.includes(name) ? relativeError(got, f.get(`grad.${name}`)!.values) : 0
  out.push({ name, n, s, full })
}
out.sort((a, b) => b.s - a.s)
for (const o of out.slice(0, 8)) console.log(o.name, "norm", o.n.toExponential(2), "samples", o.s.toExponential(2))
console.log(
  "worst norm",
  Math.max(...out.map((o) => o.n)),
  "full",
  out.filter((o) => o.full).map((o) => o.full),
)
console.log("median sample", out[210].s)
process.exit(0)
