import { NONE, type RequiredKernels } from "@sloth/core"

import { Data } from "../data.ts"
import { F32, sumError } from "../tolerance.ts"
import type { KernelCase, Twin } from "../twin.ts"

type Cases<N extends keyof RequiredKernels> = Record<N, KernelCase[]>

const ROWS: readonly (readonly [number, number])[] = [
  [1, 1],
  [5, 33],
  [33, 5],
  [123, 257],
]

/** The parts of the RMS norm's gradient whose roundings matter, from exact inputs. */
function normMagnitudes(
  x: Float32Array,
  g: Float32Array,
  rstd: Float64Array,
  rows: number,
  cols: number,
): Float64Array {
  const out = new Float64Array(rows * cols)
  for (let r = 0; r < rows; r++) {
    let projection = 0
    for (let i = r * cols; i < (r + 1) * cols; i++) projection += Math.abs(g[i]! * x[i]!) * rstd[r]!
    projection /= cols
    for (let i = r * cols; i < (r + 1) * cols; i++) {
      out[i] = rstd[r]! * (Math.abs(g[i]!) + Math.abs(x[i]!) * rstd[r]! * projection)
    }
  }
  return out
}

/** Cases of RMS norm, rotary positions and gated activations. */
export const transformerCases: Cases<
  "rmsNorm" | "rmsNormBackward" | "rope" | "gatedActivation" | "gatedActivationBackward"
> = {
  rmsNorm: ROWS.map(([rows, cols]) => ({
    label: `${rows}x${cols}`,
    async run(t) {
      const d = new Data(cols)
      const [x, w] = [d.floats(rows * cols), d.floats(cols)]
      const [source, weight] = [t.floats(x), t.floats(w)]
      for (const [useWeight, keep, offset] of [
        [true, true, 0],
        [true, false, 1],
        [false, true, 0],
        [false, true, 1],
      ] as const) {
        const y = t.output(rows * cols)
        const rstd = keep ? t.output(rows) : NONE
        t.call("rmsNorm", y, rstd, source, useWeight ? weight : NONE, rows, cols, 1e-5, offset)
        // rstd is half as sensitive to its sum; the factor w + offset may cancel, so its parts count.
        const exact = t.exact(y)
        const part = (i: number): number =>
          useWeight
            ? Math.abs(exact[i]!) + Math.abs(offset * (exact[i]! / (w[i % cols]! + offset)))
            : Math.abs(exact[i]!)
        await t.compare(y, (i) => sumError(cols, part(i)), "rmsNorm")
        if (typeof rstd !== "number") {
          const inverse = t.exact(rstd)
          await t.compare(rstd, (i) => sumError(cols, inverse[i]!), "rstd")
        }
      }
    },
  })),

  rmsNormBackward: ROWS.map(([rows, cols]) => ({
    label: `${rows}x${cols}`,
    async run(t) {
      const d = new Data(cols)
      const [x, w, dy] = [d.floats(rows * cols), d.floats(cols), d.floats(rows * cols)]
      const [dx0, dw0] = [d.floats(rows * cols), d.floats(cols)]
      const rstd = new Float64Array(rows)
      for (let r = 0; r < rows; r++) {
        const squares = x.subarray(r * cols, (r + 1) * cols).reduce((sum, value) => sum + value * value, 0)
        rstd[r] = Math.fround(1 / Math.sqrt(squares / cols + 1e-5))
      }
      const [source, weight, gradient, kept] = [t.floats(x), t.floats(w), t.floats(dy), t.floats(rstd)]
      for (const [useWeight, wantsWeight, offset, accumulate] of [
        [true, true, 0, 0],
        [true, true, 1, 1],
        [true, false, 0, 1],
        [false, false, 0, 0],
      ] as const) {
        const factor = (i: number): number => (useWeight ? Math.abs(w[i % cols]!) + offset : 1)
        const magnitude = normMagnitudes(
          x,
          dy.map((value, i) => value * factor(i)),
          rstd,
          rows,
          cols,
        )
        const dx = accumulate ? t.output(rows * cols, dx0) : t.output(rows * cols)
        const dw = wantsWeight ? t.output(cols, dw0) : NONE
        t.call(
          "rmsNormBackward",
          dx,
          dw,
          gradient,
          source,
          useWeight ? weight : NONE,
          kept,
          rows,
          cols,
          offset,
          accumulate,
        )
        await t.compare(dx, (i) => sumError(cols, magnitude[i]! + accumulate * Math.abs(dx0[i]!)), "dx")
        if (typeof dw === "number") continue
        const columns = new Float64Array(cols)
        for (let i = 0; i < rows * cols; i++)
          columns[i % cols]! += Math.abs(dy[i]! * x[i]!) * rstd[Math.floor(i / cols)]!
        await t.compare(dw, (i) => sumError(rows + 1, columns[i]! + Math.abs(dw0[i]!)), "dw")
      }
    },
  })),

  rope: (
    [
      // rows, heads, headDim, rotary, gap between rows
      [1, 1, 2, 2, 0],
      [5, 3, 10, 10, 7],
      [33, 2, 64, 64, 64],
      [123, 5, 33, 20, 1],
      [7, 1, 8, 0, 0],
    ] as const
  ).map(([rows, heads, headDim, rotary, gap]) => ({
    label: `${rows} rows, ${heads}x${headDim}, rotary ${rotary}, gap ${gap}`,
    async run(t: Twin) {
      const d = new Data(rows + headDim)
      const ldx = heads * headDim + gap
      const half = rotary / 2
      const table = 50
      const angles = d.between(table * half, -4, 4)
      const [cos, sin] = [t.floats(angles.map(Math.cos)), t.floats(angles.map(Math.sin))]
      const x = d.floats((rows - 1) * ldx + heads * headDim)
      const positions = d.integers(rows, table)
      positions[0] = table - 1
      const [values, where] = [t.output(x.length, x), t.integers(positions)]
      const rotated = (i: number): boolean => i % ldx < heads * headDim && (i % ldx) % headDim < rotary
      for (const inverse of [0, 1]) {
        t.call("rope", values, ldx, cos, sin, where, rows, heads, headDim, rotary, inverse)
        // Two products of numbers up to 6 and one sum; what is not rotated must stay as it is.
        await t.compare(values, (i) => (rotated(i) ? (1 + inverse) * sumError(2, 12) : 0), inverse ? "inverse" : "rope")
      }
      // The inverse undoes the rotation.
      const back = t.exact(values)
      for (let i = 0; i < x.length; i++) {
        if (Math.abs(back[i]! - x[i]!) > 1e-5) throw new Error(`rope: element ${i} does not return`)
      }
    },
  })),

  gatedActivation: gated((act) => async (t, n, gate, up) => {
    const h = t.output(n)
    t.call("gatedActivation", h, t.floats(gate), t.floats(up), act, n)
    await t.compare(h, (i) => 8 * F32 * steep(gate[i]!) * Math.abs(gate[i]! * up[i]!), "gatedActivation")
  }),

  gatedActivationBackward: gated((act) => async (t, n, gate, up, dh) => {
    const [gates, ups, gradient] = [t.floats(gate), t.floats(up), t.floats(dh)]
    const [dgate, dup] = [t.output(n), t.output(n)]
    const check = async (a: typeof dgate, b: typeof dup): Promise<void> => {
      await t.compare(a, (i) => 16 * F32 * steep(gate[i]!) * Math.abs(dh[i]! * up[i]!), "dgate")
      await t.compare(b, (i) => 8 * F32 * steep(gate[i]!) * Math.abs(dh[i]! * gate[i]!), "dup")
    }
    t.call("gatedActivationBackward", dgate, dup, gradient, gates, ups, act, n)
    await check(dgate, dup)
    // In place over gate and up.
    t.call("gatedActivationBackward", gates, ups, gradient, gates, ups, act, n)
    await check(gates, ups)
  }),
}

/** exp and tanh turn a rounding of their argument, which is up to x + 0.045 x³ large, into a relative error of that size. */
const steep = (x: number): number => 1 + Math.abs(x) + 0.05 * Math.abs(x) ** 3

function gated(
  make: (act: number) => (t: Twin, n: number, gate: Float32Array, up: Float32Array, dh: Float32Array) => Promise<void>,
): KernelCase[] {
  return ["silu", "gelu tanh", "gelu"].flatMap((name, act) =>
    [1, 5, 33, 123, 20_001].map((n) => ({
      label: `${name}, n ${n}`,
      run(t: Twin) {
        const d = new Data(n + act)
        const gate = d.floats(n, 3)
        // Far out, the activation is 0 or the identity, and nothing may overflow.
        for (const [i, value] of [0, 100, -100, 12, -12].entries()) if (i < n && n > 5) gate[i] = value
        return make(act)(t, n, gate, d.floats(n), d.floats(n))
      },
    })),
  )
}
