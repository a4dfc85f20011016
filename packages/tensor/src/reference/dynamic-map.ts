/**
 * The 256 values of the dynamic 8-bit data type, ascending: a sign, an exponent of base ten and a linear fraction share 8 bits.
 *
 * For every i in 0..6 the midpoints of linspace(0.1, 1, parts + 1), times 10^(i - 6), are values; parts is 2^i for the signed map (each value with both
 * signs) and 2^(i+1) for the unsigned one; 0 and 1 complete it. Computed in double precision and rounded to f32 once, so that all backends agree; the f32
 * arithmetic of the published code differs in the last bit of some values.
 * Source: Dettmers, Lewis, Shleifer and Zettlemoyer 2022, "8-bit optimizers via block-wise quantization", section 2.1; bitsandbytes create_dynamic_map.
 */
export function dynamicMap(signed: boolean): Float32Array {
  const values: number[] = [0, 1]
  for (let i = 0; i < 7; i++) {
    const parts = signed ? 2 ** i : 2 ** (i + 1)
    for (let part = 0; part < parts; part++) {
      const value = (0.1 + (0.9 * (part + 0.5)) / parts) / 10 ** (6 - i)
      values.push(value)
      if (signed) values.push(-value)
    }
  }
  return Float32Array.from(values).sort()
}

/** Code of the value of an ascending map that is nearest to x; a tie takes the lower code. */
export function nearestCode(map: Float32Array, x: number): number {
  let low = 0
  let high = map.length - 1
  while (high - low > 1) {
    const middle = (low + high) >>> 1
    if (map[middle]! <= x) low = middle
    else high = middle
  }
  return x - map[low]! <= map[high]! - x ? low : high
}
