import type { WeightFormat } from "../weight-format.ts"
import { toBf16 } from "./half.ts"

/** bfloat16: the upper half of an f32, round to nearest even, NaN kept. */
export const bf16Format: WeightFormat = {
  id: "bf16",
  code: 30,
  blockSize: 1,
  blockBytes: 2,
  dequantizeRow(src, out, n) {
    const bits = new Uint32Array(out.buffer, out.byteOffset, n)
    for (let i = 0; i < n; i++) bits[i] = (src[2 * i]! << 16) | (src[2 * i + 1]! << 24)
  },
  quantizeRow(src, out, n) {
    for (let i = 0; i < n; i++) {
      const bits = toBf16(src[i]!)
      out[2 * i] = bits
      out[2 * i + 1] = bits >>> 8
    }
  },
}
