/**
 * Conversion between f32 and the two 16-bit floats: IEEE 754 binary16 and bfloat16 (the upper half of a binary32).
 * Rounding is to nearest, ties to even; subnormals are kept; NaN stays NaN.
 */

const scratch = new Float32Array(1)
const scratchBits = new Uint32Array(scratch.buffer)

/** Bits of a number after rounding it to f32. */
function bitsOf(value: number): number {
  scratch[0] = value
  return scratchBits[0]!
}

/** binary16 bits of a value (rounded to f32 first); 65520 and above become infinity. */
export function toF16(value: number): number {
  const bits = bitsOf(value)
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff)
  if (magnitude >= 0x477ff000) return sign | 0x7c00
  if (magnitude < 0x38800000) {
    // Below 2^-14 the result counts steps of 2^-24; the product is exact in a double, so one rounding happens.
    const steps = Math.abs(scratch[0]!) * 0x1000000
    const floor = Math.floor(steps)
    const rest = steps - floor
    return sign | (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor)
  }
  // The exponent bias goes from 127 to 15; a carry out of the fraction moves into the exponent as it should.
  const rebiased = magnitude - 0x38000000
  return sign | ((rebiased + 0xfff + ((rebiased >>> 13) & 1)) >>> 13)
}

/** Value of binary16 bits, computed from its definition. */
export function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >>> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN
  if (exponent === 0) return sign * fraction * 2 ** -24
  return sign * (1024 + fraction) * 2 ** (exponent - 25)
}

let table: Float32Array | undefined

/** All 65536 binary16 values by their bits: decoding a row is one load an element. */
export function f16Table(): Float32Array {
  if (table === undefined) {
    table = new Float32Array(65536)
    for (let bits = 0; bits < 65536; bits++) table[bits] = fromF16(bits)
  }
  return table
}

/** bfloat16 bits of a value (rounded to f32 first). */
export function toBf16(value: number): number {
  const bits = bitsOf(value)
  // Rounding could carry a NaN with a small payload into infinity, so it is made quiet instead.
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff
}

/** Value of bfloat16 bits. */
export function fromBf16(bits: number): number {
  scratchBits[0] = bits << 16
  return scratch[0]!
}
