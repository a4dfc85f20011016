import type { WeightFormat } from "../weight-format.ts"
import { f16Table, toF16 } from "./half.ts"

const fround = Math.fround

/**
 * 32 elements in 20 bytes: f16 d, f16 m, then 16 bytes whose low nibble is element j and high nibble element j + 16; x = d · q + m.
 * Source: block_q4_1 and its reference rounding in ggml (ggml-quants.c).
 */
export const q4_1Format: WeightFormat = {
  id: "q4_1",
  code: 3,
  blockSize: 32,
  blockBytes: 20,
  dequantizeRow(src, out, n) {
    const half = f16Table()
    for (let i = 0, at = 0; i < n; i += 32, at += 20) {
      const d = half[src[at]! | (src[at + 1]! << 8)]!
      const m = half[src[at + 2]! | (src[at + 3]! << 8)]!
      for (let j = 0; j < 16; j++) {
        const pair = src[at + 4 + j]!
        out[i + j] = d * (pair & 15) + m
        out[i + j + 16] = d * (pair >>> 4) + m
      }
    }
  },
  quantizeRow(src, out, n) {
    for (let i = 0, at = 0; i < n; i += 32, at += 20) {
      let least = src[i]!
      let most = src[i]!
      for (let j = 1; j < 32; j++) {
        least = Math.min(least, src[i + j]!)
        most = Math.max(most, src[i + j]!)
      }
      const d = fround(fround(most - least) / 15)
      const inverse = d === 0 ? 0 : fround(1 / d)
      const dBits = toF16(d)
      const mBits = toF16(least)
      out[at] = dBits
      out[at + 1] = dBits >>> 8
      out[at + 2] = mBits
      out[at + 3] = mBits >>> 8
      const code = (x: number): number =>
        Math.max(0, Math.min(15, Math.trunc(fround(fround(fround(x - least) * inverse) + 0.5))))
      for (let j = 0; j < 16; j++) out[at + 4 + j] = code(src[i + j]!) | (code(src[i + j + 16]!) << 4)
    }
  },
}
