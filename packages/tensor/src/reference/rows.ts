import type { RequiredKernels } from "@sloth/core"

import { bytesFor } from "../weight-format.ts"
import type { Call, Define } from "./call.ts"

type Names = "dequantize" | "quantize" | "embedding" | "embeddingBackward" | "gatherRows" | "scatterRows"

const checkIndex = (c: Call, argument: string, index: Int32Array, limit: number): void => {
  for (let i = 0; i < index.length; i++) {
    const value = index[i]!
    c.data(value >= 0 && value < limit, argument, `has ${value} at position ${i}, which is not in 0..${limit - 1}`)
  }
}

/** Kernels that store, look up and move whole rows. */
export const rowKernels = (define: Define): Pick<RequiredKernels, Names> => ({
  dequantize: define("dequantize", (c, out, w, format, rows, cols) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    const weight = c.weight("w", w, format, rows, cols)
    const target = c.floatOut("out", out, rows * cols)
    for (let r = 0; r < rows; r++) target.set(weight.row(r), r * cols)
  }),

  quantize: define("quantize", (c, out, x, format, rows, cols) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    const source = c.float("x", x, rows * cols)
    if (format === 0) {
      c.floatOut("out", out, rows * cols).set(source)
      return
    }
    const stored = c.format(format)
    c.require(stored.quantizeRow !== undefined, "format", `${stored.id} can only be read`)
    c.require(cols % stored.blockSize === 0, "cols", `must be a multiple of ${stored.blockSize} for ${stored.id}`)
    const rowBytes = bytesFor(stored, cols)
    const target = c.rawOut("out", out, rows * rowBytes)
    const row = new Float32Array(cols)
    for (let r = 0; r < rows; r++) {
      row.set(source.subarray(r * cols, (r + 1) * cols))
      stored.quantizeRow?.(row, target.subarray(r * rowBytes, (r + 1) * rowBytes), cols)
    }
  }),

  embedding: define("embedding", (c, out, w, format, ids, rows, vocab, cols, scale) => {
    c.whole("rows", rows)
    c.whole("vocab", vocab)
    c.whole("cols", cols)
    const weight = c.weight("w", w, format, vocab, cols)
    const tokens = c.int("ids", ids, rows)
    checkIndex(c, "ids", tokens, vocab)
    const target = c.floatOut("out", out, rows * cols)
    for (let i = 0; i < rows; i++) {
      const row = weight.row(tokens[i]!)
      for (let col = 0; col < cols; col++) target[i * cols + col] = scale * row[col]!
    }
  }),

  embeddingBackward: define("embeddingBackward", (c, dw, dy, ids, rows, vocab, cols, scale) => {
    c.whole("rows", rows)
    c.whole("vocab", vocab)
    c.whole("cols", cols)
    const gradient = c.float("dy", dy, rows * cols)
    const tokens = c.int("ids", ids, rows)
    checkIndex(c, "ids", tokens, vocab)
    const target = c.floatOut("dw", dw, vocab * cols)
    for (let i = 0; i < rows; i++) {
      for (let col = 0; col < cols; col++) target[tokens[i]! * cols + col]! += scale * gradient[i * cols + col]!
    }
  }),

  gatherRows: define("gatherRows", (c, out, x, index, rows, cols) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    const wanted = c.int("index", index, rows)
    // The call does not say how many rows x has; its size does.
    const available = cols === 0 || rows === 0 ? 0 : Math.floor(c.size("x", x) / 4 / cols)
    if (cols > 0) checkIndex(c, "index", wanted, available)
    const source = c.float("x", x, available * cols)
    const target = c.floatOut("out", out, rows * cols)
    for (let i = 0; i < rows; i++) {
      for (let col = 0; col < cols; col++) target[i * cols + col] = source[wanted[i]! * cols + col]!
    }
  }),

  scatterRows: define("scatterRows", (c, out, x, index, rows, cols, outRows, accumulate) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    c.whole("outRows", outRows)
    c.whole("accumulate", accumulate, 0, 1)
    const source = c.float("x", x, rows * cols)
    const where = c.int("index", index, rows)
    checkIndex(c, "index", where, outRows)
    const target = c.floatOut("out", out, outRows * cols)
    if (!accumulate) target.fill(0)
    // Rows that share an index add up, which makes this the gradient of gatherRows.
    for (let i = 0; i < rows; i++) {
      for (let col = 0; col < cols; col++) target[where[i]! * cols + col]! += source[i * cols + col]!
    }
  }),
})
