import type { WeightFormat } from "../weight-format.ts"
import { f16Table, toF16 } from "./half.ts"

const fround = Math.fround

/**
 * 32 elements in 18 bytes: f16 d, then 16 bytes whose low nibble is element j and high nibble element j + 16; x = d · (q - 8).
 * Source: block_q4_0 in ggml (ggml-quants.c); the code of an element is trunc(x / d + 8.5), each step rounded to f32.
 */
export const q4_0Format: WeightFormat = {
  id: "q4_0",
  code: 2,
  blockSize: 32,
  blockBytes: 18,
  dequantizeRow(src, out, n) {
    const half = f16Table()
    for (let i = 0, at = 0; i < n; i += 32, at += 18) {
      const d = half[src[at]! | (src[at + 1]! << 8)]!
      for (let j = 0; j < 16; j++) {
        const pair = src[at + 2 + j]!
        out[i + j] = d * ((pair & 15) - 8)
        out[i + j + 16] = d * ((pair >>> 4) - 8)
      }
    }
  },
  quantizeRow(src, out, n) {
    for (let i = 0, at = 0; i < n; i += 32, at += 18) {
      // The element of largest magnitude, with its sign, becomes code 0: the range is -8..7.
      let extreme = 0
      for (let j = 0; j < 32; j++) if (Math.abs(src[i + j]!) > Math.abs(extreme)) extreme = src[i + j]!
      const d = fround(extreme / -8)
      const inverse = d === 0 ? 0 : fround(1 / d)
      const bits = toF16(d)
      out[at] = bits
      out[at + 1] = bits >>> 8
      const code = (x: number): number => Math.max(0, Math.min(15, Math.trunc(fround(fround(x * inverse) + 8.5))))
      for (let j = 0; j < 16; j++) out[at + 2 + j] = code(src[i + j]!) | (code(src[i + j + 16]!) << 4)
    }
  },
}
