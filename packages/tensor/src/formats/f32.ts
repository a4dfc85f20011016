import type { WeightFormat } from "../weight-format.ts"

/** 32-bit floats as they are. */
export const f32Format: WeightFormat = {
  id: "f32",
  code: 0,
  blockSize: 1,
  blockBytes: 4,
  dequantizeRow(src, out, n) {
    // Through bytes, because the source of a mapped file may not be aligned to 4.
    new Uint8Array(out.buffer, out.byteOffset, n * 4).set(src.subarray(0, n * 4))
  },
  quantizeRow(src, out, n) {
    out.set(new Uint8Array(src.buffer, src.byteOffset, n * 4))
  },
}
