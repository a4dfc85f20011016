import type { WeightFormat } from "../weight-format.ts"
import { f16Table, toF16 } from "./half.ts"

const fround = Math.fround

/** Nearest integer with halves away from zero, as C's roundf. */
const roundAway = (x: number): number => (x < 0 ? -Math.floor(0.5 - x) : Math.floor(x + 0.5))

/**
 * 32 elements in 34 bytes: f16 d, then 32 signed bytes; x = d · q.
 * Source: block_q8_0 and its reference rounding in ggml (ggml-quants.c).
 */
export const q8_0Format: WeightFormat = {
  id: "q8_0",
  code: 8,
  blockSize: 32,
  blockBytes: 34,
  dequantizeRow(src, out, n) {
    const half = f16Table()
    for (let i = 0, at = 0; i < n; i += 32, at += 34) {
      const d = half[src[at]! | (src[at + 1]! << 8)]!
      for (let j = 0; j < 32; j++) out[i + j] = d * ((src[at + 2 + j]! << 24) >> 24)
    }
  },
  quantizeRow(src, out, n) {
    for (let i = 0, at = 0; i < n; i += 32, at += 34) {
      let largest = 0
      for (let j = 0; j < 32; j++) largest = Math.max(largest, Math.abs(src[i + j]!))
      const d = fround(largest / 127)
      const inverse = d === 0 ? 0 : fround(1 / d)
      const bits = toF16(d)
      out[at] = bits
      out[at + 1] = bits >>> 8
      for (let j = 0; j < 32; j++) out[at + 2 + j] = roundAway(fround(src[i + j]! * inverse))
    }
  },
}
