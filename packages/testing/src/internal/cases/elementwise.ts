import type { RequiredKernels } from "@sloth/core"

import { check } from "../assert.ts"
import { Data } from "../data.ts"
import { F32, largest, sumError } from "../tolerance.ts"
import type { KernelCase, Twin } from "../twin.ts"

type Cases<N extends keyof RequiredKernels> = Record<N, KernelCase[]>

// The last is beyond any reasonable size of a piece of work, so that threads split it.
const SIZES = [1, 5, 33, 123, 70_001]

const each = (run: (t: Twin, n: number, d: Data) => Promise<void>, sizes = SIZES): KernelCase[] =>
  sizes.map((n) => ({ label: `n ${n}`, run: (t) => run(t, n, new Data(n)) }))

/** Cases of fill, copy, add, mul, scale, scaleRows, dropout, random numbers and reductions. */
export const elementwiseCases: Cases<
  | "fill"
  | "copy"
  | "add"
  | "mul"
  | "scale"
  | "scaleRows"
  | "dropout"
  | "randomUniform"
  | "randomNormal"
  | "sumSquares"
  | "sum"
  | "sumRows"
  | "countNonFinite"
> = {
  fill: each(async (t, n) => {
    const out = t.output(n)
    t.call("fill", out, -1.5, n)
    await t.same(out, "fill")
  }),

  copy: [0, 1, 7, 64, 4099, 300_001].map((bytes) => ({
    label: `${bytes} bytes`,
    async run(t) {
      const d = new Data(bytes)
      const src = t.bytes(Uint8Array.from({ length: bytes + 3 }, () => d.below(256)))
      const out = t.outputBytes(bytes)
      t.call("copy", out, src, bytes)
      await t.same(out, "copy")
    },
  })),

  add: each(async (t, n, d) => {
    const [a, b] = [d.floats(n), d.floats(n)]
    const [left, right, out] = [t.floats(a), t.floats(b), t.output(n)]
    t.call("add", out, left, right, n)
    await t.compare(out, (i) => F32 * Math.abs(a[i]! + b[i]!), "add")
    t.call("add", left, left, right, n)
    await t.compare(left, (i) => F32 * Math.abs(a[i]! + b[i]!), "add into a")
    t.call("add", right, left, right, n)
    await t.compare(right, (i) => 3 * F32 * (Math.abs(a[i]!) + 2 * Math.abs(b[i]!)), "add into b")
  }),

  mul: each(async (t, n, d) => {
    const [a, b] = [d.floats(n), d.floats(n)]
    const out = t.output(n)
    t.call("mul", out, t.floats(a), t.floats(b), n)
    await t.compare(out, (i) => F32 * Math.abs(a[i]! * b[i]!), "mul")
  }),

  scale: each(async (t, n, d) => {
    const [x, y] = [d.floats(n), d.floats(n)]
    const [source, out] = [t.floats(x), t.output(n, y)]
    // 0.3 is not an f32: rounding it adds a half unit.
    const allowed = (i: number): number => 4 * F32 * (Math.abs(0.3 * x[i]!) + Math.abs(y[i]!))
    t.call("scale", out, source, 0.3, n, 1)
    await t.compare(out, allowed, "scale added")
    t.call("scale", out, source, 0.3, n, 0)
    await t.compare(out, allowed, "scale")
  }),

  scaleRows: [
    [1, 1],
    [5, 33],
    [33, 5],
    [123, 600],
  ].map(([rows, cols]) => ({
    label: `${rows}x${cols}`,
    async run(t) {
      const d = new Data(cols!)
      const [x, y, s] = [d.floats(rows! * cols!), d.floats(rows! * cols!), d.floats(rows!)]
      const [source, factors] = [t.floats(x), t.floats(s)]
      const allowed = (i: number): number => 3 * F32 * (Math.abs(x[i]! * s[Math.floor(i / cols!)]!) + Math.abs(y[i]!))
      const out = t.output(y.length, y)
      t.call("scaleRows", out, source, factors, rows!, cols!, 1)
      await t.compare(out, allowed, "scaleRows added")
      t.call("scaleRows", out, source, factors, rows!, cols!, 0)
      await t.compare(out, allowed, "scaleRows")
    },
  })),

  dropout: each(async (t, n, d) => {
    const x = d.between(n, 0.5, 2)
    for (const [p, seed, stream, step, first] of [
      [0.1, 0, 0, 0, 0],
      [0.5, 2 ** 40 + 12345, 7, 3, 64],
      [0.4, 3, 7, 3, 1],
      [0.6, 3, 7, 3, 1_000_003],
      [0, 1, 2, 4_000_000_000, 2],
    ] as const) {
      const [source, out, again] = [t.floats(x), t.output(n), t.output(n)]
      t.call("dropout", out, source, p, n, seed, stream, step, first)
      const kept = await t.compare(out, (i) => (3 * F32 * x[i]!) / (1 - p), `dropout ${p}`)
      t.call("dropout", again, source, p, n, seed, stream, step, first)
      const repeated = await t.compare(again, (i) => (3 * F32 * x[i]!) / (1 - p), `dropout ${p} again`)
      // Every input is positive, so a zero is a dropped element, and the mask is exactly the reference's (a tolerance would not hide a swap).
      check(
        kept.every((value, i) => value === repeated[i]),
        "the same call must give the same mask",
      )
    }
  }),

  randomUniform: each(async (t, n) => {
    const out = t.output(n)
    t.call("randomUniform", out, 0, 1, n, 2 ** 35 + 17, 5)
    await t.same(out, "uniform in [0, 1)")
    t.call("randomUniform", out, -0.5, 0.5, n, 3, 4_294_967_295)
    await t.same(out, "uniform in [-0.5, 0.5)")
    t.call("randomUniform", out, -0.0417, 0.0417, n, 3, 1)
    await t.compare(out, 2 * F32 * 0.0417, "uniform")
  }),

  randomNormal: each(async (t, n) => {
    const out = t.output(n)
    t.call("randomNormal", out, 0, 1, n, 2 ** 35 + 17, 5)
    // One unit in the last place of values below 8: the libraries' cosines and logarithms may differ before rounding.
    const exact = t.exact(out)
    await t.compare(out, (i) => 2 * F32 * Math.abs(exact[i]!), "normal")
    t.call("randomNormal", out, 3, 0.02, n, -77, 2)
    await t.compare(out, 2 * F32 * 4, "normal around 3")
  }),

  sumSquares: each(async (t, n, d) => {
    const x = d.floats(n)
    const out = t.outputBytes(24)
    t.call("sumSquares", out, 1, t.floats(x), n)
    await compareDouble(t, out, sumError(n, n * largest(x) ** 2), "sumSquares")
  }),

  sum: each(async (t, n, d) => {
    const x = d.floats(n)
    const out = t.outputBytes(24)
    t.call("sum", out, 2, t.floats(x), n)
    await compareDouble(t, out, sumError(n, n * largest(x)), "sum")
  }),

  sumRows: [
    [1, 1],
    [33, 5],
    [5, 123],
    [1000, 70],
  ].map(([rows, cols]) => ({
    label: `${rows}x${cols}`,
    async run(t) {
      const d = new Data(rows!)
      const [x, y] = [d.floats(rows! * cols!), d.floats(cols!)]
      const [source, out] = [t.floats(x), t.output(cols!, y)]
      const allowed = sumError(rows! + 1, (rows! + 1) * Math.max(largest(x), largest(y)))
      t.call("sumRows", out, source, rows!, cols!, 1)
      await t.compare(out, allowed, "sumRows added")
      t.call("sumRows", out, source, rows!, cols!, 0)
      await t.compare(out, allowed, "sumRows")
    },
  })),

  countNonFinite: each(async (t, n, d) => {
    const x = d.floats(n)
    for (const [i, bad] of [NaN, Infinity, -Infinity, 3.4e38, 1e-45].entries()) x[d.below(n)] = i < n ? bad : 0
    const out = t.outputBytes(12)
    t.call("countNonFinite", out, 2, t.floats(x), n)
    await t.same(out, "countNonFinite")
  }),
}

async function compareDouble(
  t: Twin,
  out: Parameters<Twin["agreed"]>[0],
  allowed: number,
  label: string,
): Promise<void> {
  const actual = new Float64Array((await t.agreed(out, label)).buffer)
  const expected = new Float64Array((await t.reference.memory.read(out.reference, 0, out.bytes)).buffer)
  for (let i = 0; i < actual.length; i++) {
    check(
      Math.abs(actual[i]! - expected[i]!) <= allowed,
      `${label}: slot ${i} is ${actual[i]}, exact ${expected[i]}, allowed error ${allowed}`,
    )
  }
}
