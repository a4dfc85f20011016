import type { BufferHandle } from "@sloth/core"
import type { ReferenceBackend } from "@sloth/tensor"

import { check } from "./assert.ts"

/**
 * Central difference of a loss in each of the values of a buffer, on a float64 reference backend.
 *
 * With a step of 1e-5 the truncation error is about 1e-10 of the third derivative, and rounding about 1e-16 / 1e-5 = 1e-11 of the loss.
 */
export function finiteDifference(
  backend: ReferenceBackend,
  buffer: BufferHandle,
  loss: () => number,
  step = 1e-5,
): Float64Array {
  const values = backend.readFloat64(buffer)
  const out = new Float64Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const moved = new Float64Array(values)
    moved[i] = values[i]! + step
    backend.writeFloat64(buffer, moved)
    const above = loss()
    moved[i] = values[i]! - step
    backend.writeFloat64(buffer, moved)
    out[i] = (above - loss()) / (2 * step)
  }
  backend.writeFloat64(buffer, values)
  return out
}

/** Checks a gradient kernel's result against finite differences, to 1e-7 of the largest component. */
export function checkGradient(actual: ArrayLike<number>, expected: Float64Array, label: string): void {
  check(actual.length >= expected.length, `${label}: ${actual.length} numbers instead of ${expected.length}`)
  let scale = 1
  for (const value of expected) scale = Math.max(scale, Math.abs(value))
  for (let i = 0; i < expected.length; i++) {
    check(
      Math.abs(actual[i]! - expected[i]!) <= 1e-7 * scale,
      `${label}[${i}] is ${actual[i]}, finite differences give ${expected[i]}`,
    )
  }
}
