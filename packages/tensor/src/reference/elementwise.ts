import type { RequiredKernels } from "@sloth/core"

import { gelu, geluDerivative, geluTanh, geluTanhDerivative, silu, siluDerivative } from "./activations.ts"
import type { Define } from "./call.ts"

type Names = "fill" | "copy" | "add" | "mul" | "scale" | "scaleRows" | "gatedActivation" | "gatedActivationBackward"

const functions = [silu, geluTanh, gelu]
const derivatives = [siluDerivative, geluTanhDerivative, geluDerivative]

/** Kernels that treat every element by itself. */
export const elementwiseKernels = (
  define: Define,
  copyBytes: RequiredKernels["copy"],
): Pick<RequiredKernels, Names> => ({
  fill: define("fill", (c, out, value, n) => {
    c.whole("n", n)
    c.floatOut("out", out, n).fill(value)
  }),

  copy: define("copy", (c, out, src, bytes) => {
    c.whole("bytes", bytes)
    c.raw("src", src, bytes)
    c.rawOut("out", out, bytes)
    copyBytes(out, src, bytes)
  }),

  add: define("add", (c, out, a, b, n) => {
    c.whole("n", n)
    const left = c.float("a", a, n)
    const right = c.float("b", b, n)
    const target = c.floatOut("out", out, n)
    for (let i = 0; i < n; i++) target[i] = left[i]! + right[i]!
  }),

  mul: define("mul", (c, out, a, b, n) => {
    c.whole("n", n)
    const left = c.float("a", a, n)
    const right = c.float("b", b, n)
    const target = c.floatOut("out", out, n)
    for (let i = 0; i < n; i++) target[i] = left[i]! * right[i]!
  }),

  scale: define("scale", (c, out, x, alpha, n, accumulate) => {
    c.whole("n", n)
    c.whole("accumulate", accumulate, 0, 1)
    const source = c.float("x", x, n)
    const target = c.floatOut("out", out, n)
    for (let i = 0; i < n; i++) target[i] = alpha * source[i]! + (accumulate ? target[i]! : 0)
  }),

  scaleRows: define("scaleRows", (c, out, x, rowScale, rows, cols, accumulate) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    c.whole("accumulate", accumulate, 0, 1)
    const source = c.float("x", x, rows * cols)
    const factors = c.float("rowScale", rowScale, rows)
    const target = c.floatOut("out", out, rows * cols)
    for (let r = 0; r < rows; r++) {
      for (let i = r * cols; i < (r + 1) * cols; i++) {
        target[i] = source[i]! * factors[r]! + (accumulate ? target[i]! : 0)
      }
    }
  }),

  gatedActivation: define("gatedActivation", (c, h, gate, up, act, n) => {
    c.whole("n", n)
    c.whole("act", act, 0, 2)
    const gates = c.float("gate", gate, n)
    const ups = c.float("up", up, n)
    const target = c.floatOut("h", h, n)
    const activation = functions[act]!
    for (let i = 0; i < n; i++) target[i] = activation(gates[i]!) * ups[i]!
  }),

  gatedActivationBackward: define("gatedActivationBackward", (c, dgate, dup, dh, gate, up, act, n) => {
    c.whole("n", n)
    c.whole("act", act, 0, 2)
    const gates = c.float("gate", gate, n)
    const ups = c.float("up", up, n)
    const gradient = c.float("dh", dh, n)
    const gateOut = c.floatOut("dgate", dgate, n)
    const upOut = c.floatOut("dup", dup, n)
    const activation = functions[act]!
    const derivative = derivatives[act]!
    for (let i = 0; i < n; i++) {
      // All reads come first, because the outputs may be the buffers of the inputs.
      const [g, u, d] = [gates[i]!, ups[i]!, gradient[i]!]
      gateOut[i] = d * u * derivative(g)
      upOut[i] = d * activation(g)
    }
  }),
})
