import type { WeightFormat } from "../weight-format.ts"
import { f16Table, toF16 } from "./half.ts"

/** IEEE 754 binary16, round to nearest even, subnormals kept. */
export const f16Format: WeightFormat = {
  id: "f16",
  code: 1,
  blockSize: 1,
  blockBytes: 2,
  dequantizeRow(src, out, n) {
    const values = f16Table()
    for (let i = 0; i < n; i++) out[i] = values[src[2 * i]! | (src[2 * i + 1]! << 8)]!
  },
  quantizeRow(src, out, n) {
    for (let i = 0; i < n; i++) {
      const bits = toF16(src[i]!)
      out[2 * i] = bits
      out[2 * i + 1] = bits >>> 8
    }
  },
}
