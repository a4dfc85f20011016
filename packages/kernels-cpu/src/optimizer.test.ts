import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads, sizes } from "../test-kit/session.ts"

const hyper = { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, gradScale: 0.5 }

/** One step of AdamW in double precision on plain arrays. */
function step(p: Float64Array, g: ArrayLike<number>, m: Float64Array, v: Float64Array, t: number): void {
  const { lr, beta1, beta2, eps, weightDecay, gradScale } = hyper
  for (let i = 0; i < p.length; i++) {
    const grad = gradScale * g[i]!
    m[i] = beta1 * m[i]! + (1 - beta1) * grad
    v[i] = beta2 * v[i]! + (1 - beta2) * grad * grad
    p[i]! -= lr * weightDecay * p[i]!
    p[i]! -= ((lr / (1 - beta1 ** t)) * m[i]!) / (Math.sqrt(v[i]!) / Math.sqrt(1 - beta2 ** t) + eps)
  }
}

const settings = [hyper.lr, hyper.beta1, hyper.beta2, hyper.eps, hyper.weightDecay] as const

/** The dynamic map, built as the paper describes it. */
function dynamicMap(signed: boolean): number[] {
  const values = [0, 1]
  for (let i = 0; i < 7; i++) {
    const parts = signed ? 2 ** i : 2 ** (i + 1)
    for (let j = 0; j < parts; j++) {
      const value = (0.1 + (0.9 * (j + 0.5)) / parts) * 10 ** (i - 6)
      values.push(value)
      if (signed) values.push(-value)
    }
  }
  return values.sort((a, b) => a - b)
}

const nearest = (map: readonly number[], x: number): number =>
  map.reduce((best, value, code) => (Math.abs(value - x) < Math.abs(map[best]! - x) ? code : best), 0)

describe.each(isas)("adamw on %s", (isa) => {
  test.each(sizes)("five steps of %p parameters", async (n) => {
    const start = numbers(n, 50)
    const gradients = [1, 2, 3, 4, 5].map((t) => numbers(n, 50 + t, 0.1 * t))
    const [p, m, v] = await onThreads(isa, async (s) => {
      const [hp, hm, hv] = [s.f32(start), s.f32(new Float32Array(n)), s.f32(new Float32Array(n))]
      gradients.forEach((g, i) => s.k.adamw(hp, s.f32(g), hm, hv, n, ...settings, i + 1, hyper.gradScale))
      return [await s.readF32(hp), await s.readF32(hm), await s.readF32(hv)]
    })
    const [ep, em, ev] = [Float64Array.from(start), new Float64Array(n), new Float64Array(n)]
    gradients.forEach((g, i) => step(ep, g, em, ev, i + 1))
    expectClose(m!, em, 1e-5, 1e-8)
    expectClose(v!, ev, 1e-5, 1e-9)
    // Where the gradient all but vanishes, m / sqrt(v) carries the rounding of m.
    expectClose(p!, ep, 1e-6, 2e-6)
  })
})

describe.each(isas)("adamw8bit on %s", (isa) => {
  test("the maps are those of the paper", () => {
    for (const signed of [true, false]) {
      const map = dynamicMap(signed)
      expect(map.length).toBe(256)
      expect([map[0]! < 0, map.at(-1), map.includes(0)]).toEqual([signed, 1, true])
    }
  })

  test.each(sizes)(
    "two steps of %p parameters",
    async (n) => {
      const start = numbers(n, 60)
      const gradients = [numbers(n, 61), numbers(n, 62, 0.3)]
      const blocks = Math.ceil(n / 256)
      const result = await onThreads(isa, async (s) => {
        const hp = s.f32(start)
        const [m8, v8] = [s.u8(new Uint8Array(n)), s.u8(new Uint8Array(n))]
        const [mAbs, vAbs] = [s.f32(new Float32Array(blocks)), s.f32(new Float32Array(blocks))]
        const out: (Float32Array | Uint8Array)[] = []
        for (const [i, g] of gradients.entries()) {
          s.k.adamw8bit(hp, s.f32(g), m8, v8, mAbs, vAbs, n, ...settings, i + 1, hyper.gradScale)
          out.push(await s.readF32(hp), await s.readU8(m8), await s.readU8(v8), await s.readF32(mAbs), await s.readF32(vAbs)) // prettier-ignore
        }
        return out
      })
      const [signed, unsigned] = [dynamicMap(true), dynamicMap(false)]
      const [p, m, v] = [Float64Array.from(start), new Float64Array(n), new Float64Array(n)]
      gradients.forEach((g, i) => {
        step(p, g, m, v, i + 1)
        const [gotP, gotM, gotV, gotMAbs, gotVAbs] = result.slice(i * 5, i * 5 + 5) as [Float32Array, Uint8Array, Uint8Array, Float32Array, Float32Array] // prettier-ignore
        expectClose(gotP, p, 1e-6, 2e-6)
        for (let block = 0; block < blocks; block++) {
          const [from, to] = [block * 256, Math.min(n, block * 256 + 256)]
          const most = m.subarray(from, to).reduce((a, x) => Math.max(a, Math.abs(x)), 0)
          const mostSquare = v.subarray(from, to).reduce((a, x) => Math.max(a, x), 0)
          expectClose([gotMAbs[block]!, gotVAbs[block]!], [most, mostSquare], 1e-6, 0)
          for (let j = from; j < to; j++) {
            // At the exact middle between two values f32 and double may choose differently; the distance to the moment is then the same.
            const [a, b] = [signed[gotM[j]!]!, signed[nearest(signed, m[j]! / most)]!]
            expect(Math.abs(Math.abs(a - m[j]! / most) - Math.abs(b - m[j]! / most))).toBeLessThan(1e-6)
            const [c, d] = [unsigned[gotV[j]!]!, unsigned[nearest(unsigned, v[j]! / mostSquare)]!]
            expect(Math.abs(Math.abs(c - v[j]! / mostSquare) - Math.abs(d - v[j]! / mostSquare))).toBeLessThan(1e-6)
            // Go on from what was stored, so that the next step is compared by itself.
            m[j] = a * gotMAbs[block]!
            v[j] = c * gotVAbs[block]!
          }
        }
        p.set(gotP)
      })
    },
    60_000,
  )
})
