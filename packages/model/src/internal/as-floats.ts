/** Values of a small tensor of a safetensors file, as f32; undefined for a type that is no float of 16 or 32 bits. */
export const asFloats = (dtype: string, bytes: Uint8Array): Float32Array | undefined => {
  const n = dtype === "F32" ? bytes.length / 4 : bytes.length / 2
  const out = new Float32Array(n)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (dtype === "F32") for (let i = 0; i < n; i++) out[i] = view.getFloat32(i * 4, true)
  else if (dtype === "BF16")
    new Uint32Array(out.buffer).forEach((_, i, bits) => (bits[i] = view.getUint16(i * 2, true) << 16))
  else if (dtype === "F16")
    for (let i = 0; i < n; i++) {
      const h = view.getUint16(i * 2, true)
      const exponent = (h >> 10) & 31
      const fraction = h & 1023
      const value =
        exponent === 0
          ? fraction * 2 ** -24
          : exponent === 31
            ? fraction
              ? NaN
              : Infinity
            : (1 + fraction / 1024) * 2 ** (exponent - 15)
      out[i] = h & 0x8000 ? -value : value
    }
  else return undefined
  return out
}
