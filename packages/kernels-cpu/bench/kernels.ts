// Memory-bound kernels of the CPU backend against what the machine's memory gives, and the cost of the queue.
//
//   bun packages/kernels-cpu/bench/kernels.ts [--isa name] [--threads n] [--json]
import { parseArgs } from "node:util"

import { createCpuBackend } from "../src/index.ts"

const { values } = parseArgs({
  options: { isa: { type: "string" }, threads: { type: "string" }, json: { type: "boolean" } },
})
const backend = await createCpuBackend({
  isa: values.isa,
  threads: values.threads === undefined ? undefined : Number(values.threads),
})
const { kernels: k, memory } = backend
const n = 1 << 23 // 32 MiB of f32: beyond the caches
const [rows, cols] = [n / 1024, 1024]
const [a, b, c, d] = [0, 1, 2, 3].map((i) => {
  const handle = memory.alloc(n * 4)
  k.randomNormal(handle, 0, 1, n, i, 1)
  return handle
}) as [number, number, number, number]
const small = memory.alloc(rows * 4)
const weight = memory.alloc(cols * 4)
k.fill(weight, 1, cols)
k.fill(small, 1, rows)
const sums = memory.alloc(64)
const positions = memory.alloc(rows * 4)
memory.write(
  positions,
  Int32Array.from({ length: rows }, (_, i) => i % 512),
)
const table = memory.alloc(512 * 32 * 4)
k.fill(table, 0.7, 512 * 32)
const [m8, v8, mAbs, vAbs] = [memory.alloc(n), memory.alloc(n), memory.alloc(n / 64), memory.alloc(n / 64)]
for (const [handle, bytes] of [[m8, n], [v8, n], [mAbs, n / 64], [vAbs, n / 64]] as const) k.fill(handle, 0, bytes / 4) // prettier-ignore
k.fill(d, 0.01, n)

// Bytes moved to and from memory by each call.
const cases: readonly [string, number, () => void][] = [
  ["copy", 8 * n, () => k.copy(b, a, n * 4)],
  ["fill", 4 * n, () => k.fill(c, 0, n)],
  ["add", 12 * n, () => k.add(c, a, b, n)],
  ["scale accumulate", 12 * n, () => k.scale(c, a, 0.5, n, 1)],
  ["sumSquares", 4 * n, () => k.sumSquares(sums, 0, a, n)],
  ["sumRows", 4 * n, () => k.sumRows(weight, a, rows, cols, 0)],
  ["countNonFinite", 4 * n, () => k.countNonFinite(sums, 0, a, n)],
  ["dropout", 8 * n, () => k.dropout(c, a, 0.1, n, 1, 2, 3, 0)],
  ["randomUniform", 4 * n, () => k.randomUniform(c, 0, 1, n, 1, 2)],
  ["randomNormal", 4 * n, () => k.randomNormal(c, 0, 1, n, 1, 2)],
  ["rmsNorm", 8 * n, () => k.rmsNorm(c, small, a, weight, rows, cols, 1e-5, 0)],
  ["rmsNormBackward", 12 * n, () => k.rmsNormBackward(c, weight, a, b, weight, small, rows, cols, 0, 0)],
  ["rope", 8 * n, () => k.rope(c, cols, table, table, positions, rows, 16, 64, 64, 0)],
  ["silu · up", 12 * n, () => k.gatedActivation(c, a, b, 0, n)],
  ["silu · up backward", 20 * n, () => k.gatedActivationBackward(c, d, a, b, c, 0, n)],
  ["gelu tanh · up", 12 * n, () => k.gatedActivation(c, a, b, 1, n)],
  ["gelu exact · up", 12 * n, () => k.gatedActivation(c, a, b, 2, n)],
  ["adamw", 28 * n, () => k.adamw(a, b, c, d, n, 1e-9, 0.9, 0.99, 1e-8, 0, 1, 1)],
  ["adamw8bit", 16 * n, () => k.adamw8bit(a, b, m8, v8, mAbs, vAbs, n, 1e-9, 0.9, 0.99, 1e-8, 0, 1, 1)],
]

const results: { name: string; milliseconds: number; gigabytesPerSecond: number; ofCopy: number }[] = []
let copyRate = 0
for (const [name, bytes, call] of cases) {
  let best = Infinity
  for (let i = 0; i < 7; i++) {
    const start = performance.now()
    call()
    await backend.synchronize()
    best = Math.min(best, performance.now() - start)
  }
  const rate = bytes / best / 1e6
  if (name === "copy") copyRate = rate
  results.push({ name, milliseconds: best, gigabytesPerSecond: rate, ofCopy: rate / copyRate })
}

const vocab = 49152
const logits = memory.alloc(vocab * 4)
k.randomNormal(logits, 0, 3, vocab, 5, 1)
const [params, rng, id] = [memory.alloc(32), memory.alloc(16), memory.alloc(8)]
memory.write(rng, new Int32Array(4))
const sampling: { name: string; microseconds: number }[] = []
for (const [name, set] of [
  ["greedy", [0, 0, 1, 0, 1]],
  ["temperature", [1, 0, 1, 0, 1]],
  ["top-k 50, top-p 0.95", [0.8, 50, 0.95, 0, 1]],
  ["top-p 0.95", [1, 0, 0.95, 0, 1]],
] as const) {
  memory.write(params, new Float32Array([...set, 0, 0, 0]))
  let best = Infinity
  for (let i = 0; i < 20; i++) {
    const start = performance.now()
    k.sample(id, memory.view(id, 4, 4), logits, 1, vocab, params, rng, 0, 0)
    await backend.synchronize()
    best = Math.min(best, performance.now() - start)
  }
  sampling.push({ name, microseconds: best * 1000 })
}

const median = (list: number[]): number => list.sort((x, y) => x - y)[list.length >> 1]!
const times = (count: number, call: () => void): number => {
  const rounds: number[] = []
  for (let r = 0; r < 9; r++) {
    const start = performance.now()
    for (let i = 0; i < count; i++) call()
    rounds.push(((performance.now() - start) / count) * 1000)
  }
  return median(rounds)
}
const enqueue = times(20_000, () => k.fill(sums, 0, 1))
await backend.synchronize()
const enqueueLong = times(20_000, () => k.adamw(a, b, c, d, 0, 1e-9, 0.9, 0.99, 1e-8, 0, 1, 1))
await backend.synchronize()
const allocate = times(20_000, () => memory.free(memory.alloc(100_000)))
const trips: number[] = []
for (let i = 0; i < 2000; i++) {
  const start = performance.now()
  k.fill(c, 1, 65_536)
  await backend.synchronize()
  trips.push((performance.now() - start) * 1000)
}
const queue = { enqueueMicroseconds: enqueue, enqueueTwelveArgumentsMicroseconds: enqueueLong, allocFreeMicroseconds: allocate, roundTripMicroseconds: median(trips) } // prettier-ignore

const { device } = backend
backend[Symbol.dispose]()
if (values.json === true) {
  console.log(JSON.stringify({ isa: device.isa, threads: device.threads, kernels: results, sampling, queue }, null, 2))
} else {
  console.log(`${device.description}, ${device.isa}, ${device.threads} threads, ${n} elements`)
  for (const r of results) {
    console.log(`${r.name.padEnd(20)} ${r.milliseconds.toFixed(2).padStart(9)} ms ${r.gigabytesPerSecond.toFixed(1).padStart(7)} GB/s ${(r.ofCopy * 100).toFixed(0).padStart(5)} % of copy`) // prettier-ignore
  }
  for (const s of sampling)
    console.log(`sample ${s.name.padEnd(22)} ${s.microseconds.toFixed(0).padStart(6)} µs a row of ${vocab}`)
  for (const [name, value] of Object.entries(queue)) console.log(`${name.padEnd(36)} ${value.toFixed(2)}`)
}
