import type { RequiredKernels } from "@sloth/core"
import { dynamicMap } from "@sloth/tensor"

import { check } from "../assert.ts"
import { Data } from "../data.ts"
import { F32 } from "../tolerance.ts"
import type { KernelCase, Twin } from "../twin.ts"

type Cases<N extends keyof RequiredKernels> = Record<N, KernelCase[]>

const SETTINGS = [
  { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, step: 1, gradScale: 1 },
  { lr: 2e-2, beta1: 0.9, beta2: 0.95, eps: 1e-6, weightDecay: 0.1, step: 7, gradScale: 0.25 },
  { lr: 1e-4, beta1: 0.8, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, step: 100_000, gradScale: 1 },
] as const

type Setting = (typeof SETTINGS)[number]

const numbers = (n: number, s: Setting) =>
  [n, s.lr, s.beta1, s.beta2, s.eps, s.weightDecay, s.step, s.gradScale] as const

/** Exact new moments, and the error that f32 arithmetic may make in them and in the parameter. */
function exactStep(s: Setting, p: number, g: number, m: number, v: number) {
  const grad = s.gradScale * g
  const mean = s.beta1 * m + (1 - s.beta1) * grad
  const square = s.beta2 * v + (1 - s.beta2) * grad * grad
  // The mean may cancel, the square cannot. 1 - beta is itself rounded: 1 - 0.999 keeps 14 bits in f32.
  const meanError = 8 * F32 * (Math.abs(s.beta1 * m) + Math.abs((1 - s.beta1) * grad))
  const squareError = 8 * F32 * square
  const correction1 = 1 - s.beta1 ** s.step
  const root = Math.sqrt(square) / Math.sqrt(1 - s.beta2 ** s.step) + s.eps
  const update = Math.abs(((s.lr / correction1) * mean) / root)
  const parameterError = 4 * F32 * Math.abs(p) + 32 * F32 * update + ((s.lr / correction1) * meanError) / root
  return { mean, square, meanError, squareError, parameterError }
}

const sizes = (run: (t: Twin, n: number, s: Setting, d: Data) => Promise<void>): KernelCase[] =>
  [1, 5, 123, 255, 256, 257, 20_001].flatMap((n) =>
    SETTINGS.map((s) => ({ label: `n ${n}, step ${s.step}`, run: (t: Twin) => run(t, n, s, new Data(n + s.step)) })),
  )

/** Cases of AdamW. */
export const optimizerCases: Cases<"adamw" | "adamw8bit"> = {
  adamw: sizes(async (t, n, s, d) => {
    const first = s.step === 1
    const [p0, g0] = [d.floats(n), d.floats(n, 0.1)]
    const m0 = first ? new Float32Array(n) : d.floats(n, 0.05)
    const v0 = first ? new Float32Array(n) : d.between(n, 1e-4, 0.02)
    const [p, g, m, v] = [t.output(n, p0), t.floats(g0), t.output(n, m0), t.output(n, v0)]
    t.call("adamw", p, g, m, v, ...numbers(n, s))
    const exact = Array.from({ length: n }, (_, i) => exactStep(s, p0[i]!, g0[i]!, m0[i]!, v0[i]!))
    await t.compare(m, (i) => exact[i]!.meanError, "m")
    await t.compare(v, (i) => exact[i]!.squareError, "v")
    await t.compare(p, (i) => exact[i]!.parameterError, "p")
  }),

  adamw8bit: sizes(async (t, n, s, d) => {
    const first = s.step === 1
    const blocks = Math.ceil(n / 256)
    const [signed, unsigned] = [dynamicMap(true), dynamicMap(false)]
    const [p0, g0] = [d.floats(n), d.floats(n, 0.1)]
    const codes = (): Uint8Array => Uint8Array.from({ length: n }, () => (first ? 0 : d.below(256)))
    const [m0, v0] = [codes(), codes()]
    const mAbs0 = first ? new Float32Array(blocks) : d.between(blocks, 0.02, 0.1)
    const vAbs0 = first ? new Float32Array(blocks) : d.between(blocks, 0.001, 0.02)
    const [p, g] = [t.output(n, p0), t.floats(g0)]
    const m8 = t.bytes(m0)
    const v8 = t.bytes(v0)
    const [mAbs, vAbs] = [t.output(blocks, mAbs0), t.output(blocks, vAbs0)]
    t.call("adamw8bit", p, g, m8, v8, mAbs, vAbs, ...numbers(n, s))
    const exact = Array.from({ length: n }, (_, i) => {
      const block = Math.floor(i / 256)
      return exactStep(s, p0[i]!, g0[i]!, signed[m0[i]!]! * mAbs0[block]!, unsigned[v0[i]!]! * vAbs0[block]!)
    })
    await t.compare(p, (i) => exact[i]!.parameterError, "p")
    const means = await t.compare(mAbs, (block) => Math.max(...inBlock(exact, block).map((e) => e.meanError)), "mAbs")
    const squares = await t.compare(
      vAbs,
      (block) => Math.max(...inBlock(exact, block).map((e) => e.squareError)),
      "vAbs",
    )
    // A code may differ from the reference's where the moment stands half way between two; it must be a nearest one.
    const [mCodes, vCodes] = [await t.agreed(m8, "m8"), await t.agreed(v8, "v8")]
    for (let i = 0; i < n; i++) {
      const block = Math.floor(i / 256)
      nearest(signed, mCodes[i]!, exact[i]!.mean, means[block]!, exact[i]!.meanError, `m8[${i}]`)
      nearest(unsigned, vCodes[i]!, exact[i]!.square, squares[block]!, exact[i]!.squareError, `v8[${i}]`)
    }
  }),
}

const inBlock = <T>(values: readonly T[], block: number): T[] => values.slice(block * 256, block * 256 + 256)

/** Checks that no other code of the map stands for a value nearer to `value`, but for the error of `value` itself. */
function nearest(map: Float32Array, code: number, value: number, scale: number, error: number, label: string): void {
  if (scale === 0) return
  const distance = Math.abs(map[code]! * scale - value)
  let best = Infinity
  for (const step of map) best = Math.min(best, Math.abs(step * scale - value))
  if (distance <= best + 4 * error + 4 * F32 * scale) return
  check(false, `${label}: code ${code} is ${distance} from ${value}, the nearest ${best}`)
}
