import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads, sizes } from "../test-kit/session.ts"

/** erf by its Taylor series in double precision; for |x| < 3. */
function erf(x: number): number {
  let term = x
  let sum = x
  for (let n = 1; n < 200; n++) {
    term *= (-x * x) / n
    sum += term / (2 * n + 1)
  }
  return (2 / Math.sqrt(Math.PI)) * sum
}
/** Upper tail of the normal distribution by the continued fraction of erfc (Digital Library of Mathematical Functions, 7.9.1). */
function tail(x: number): number {
  const z = x / Math.SQRT2
  let fraction = z
  for (let k = 200; k >= 1; k--) fraction = z + k / 2 / fraction
  return Math.exp(-z * z) / (2 * Math.sqrt(Math.PI) * fraction)
}
const cdf = (x: number): number => (x > 3 ? 1 - tail(x) : x < -3 ? tail(-x) : 0.5 * (1 + erf(x / Math.SQRT2)))

const silu = (x: number): number => x / (1 + Math.exp(-x))
const gelu = (x: number): number => x * cdf(x)
const geluTanh = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
const functions = [silu, geluTanh, gelu]
const slope = (f: (x: number) => number, x: number): number => {
  const h = 1e-4
  // Fourth-order central difference: independent of the analytic derivative under test.
  return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)
}

describe.each(isas)("gated activations on %s", (isa) => {
  describe.each([0, 1, 2])("act %p", (act) => {
    test.each(sizes)("n = %p", async (n) => {
      const [gate, up, dh] = [numbers(n, 40, 6), numbers(n, 41), numbers(n, 42)]
      const f = functions[act]!
      const [h, dgate, dup, inPlaceGate, inPlaceUp] = await onThreads(isa, async (s) => {
        const [g, u, d] = [s.f32(gate), s.f32(up), s.f32(dh)]
        const [ho, dg, du] = [s.alloc(n * 4), s.alloc(n * 4), s.alloc(n * 4)]
        s.k.gatedActivation(ho, g, u, act, n)
        s.k.gatedActivationBackward(dg, du, d, g, u, act, n)
        s.k.gatedActivationBackward(g, u, d, g, u, act, n)
        return [await s.readF32(ho), await s.readF32(dg), await s.readF32(du), await s.readF32(g), await s.readF32(u)]
      })
      expectClose(h!, gate.map((g, i) => f(g) * up[i]!), 2e-6, 5e-7) // prettier-ignore
      expectClose(dgate!, gate.map((g, i) => dh[i]! * up[i]! * slope(f, g)), 3e-6, 1e-6) // prettier-ignore
      expectClose(dup!, gate.map((g, i) => dh[i]! * f(g)), 2e-6, 5e-7) // prettier-ignore
      expect(inPlaceGate).toEqual(dgate!)
      expect(inPlaceUp).toEqual(dup!)
    })

    test("far arguments give 0 and x, not NaN", async () => {
      const gate = [-3e38, -1000, -100, -20, 0, 20, 100, 1000]
      const [h] = await onThreads(isa, async (s) => {
        const [g, one, out] = [s.f32(gate), s.f32(gate.map(() => 1)), s.alloc(gate.length * 4)]
        s.k.gatedActivation(out, g, one, act, gate.length)
        return [await s.readF32(out)]
      })
      expectClose(h!, gate.map((x) => (x < 0 ? 0 : x)), 1e-6, 1e-6) // prettier-ignore
    })
  })

  test("silu keeps relative precision in its tail", async () => {
    const gate = Float32Array.from({ length: 400 }, (_, i) => -i / 5)
    const [h] = await onThreads(isa, async (s) => {
      const [g, one, out] = [s.f32(gate), s.f32(gate.map(() => 1)), s.alloc(1600)]
      s.k.gatedActivation(out, g, one, 0, 400)
      return [await s.readF32(out)]
    })
    expectClose(h!, gate.map(silu), 1e-6, 1e-36) // prettier-ignore
  })
})
