import { expect } from "bun:test"
import type { Tensor } from "@sloth/tensor"

/** Checks that a loss changes along the gradient of each tensor as finite differences say; the tensors end as they were. */
export const expectSlopes = async (
  trainables: Iterable<{ readonly tensor: Tensor }>,
  lossNow: () => Promise<number>,
): Promise<void> => {
  const shift = async (tensor: Tensor, start: Float32Array, by: Float32Array, factor: number) => {
    tensor.write(start.map((x, i) => x + factor * by[i]!))
    return await lossNow()
  }
  for (const { tensor } of trainables) {
    const [start, gradient] = [await tensor.readFloats(), await tensor.grad!.readFloats()]
    const square = gradient.reduce((n, g) => n + g * g, 0)
    expect(square).toBeGreaterThan(0)
    // A step of 1e-3 in length: the f32 rounding of a loss near 1, some 1e-7, is 1e-4 of its change.
    const eps = 1e-3 / Math.sqrt(square)
    const slope =
      ((await shift(tensor, start, gradient, eps)) - (await shift(tensor, start, gradient, -eps))) / (2 * eps)
    tensor.write(start)
    expect(Math.abs(slope / square - 1)).toBeLessThan(Math.max(5e-3, 2e-4 / Math.sqrt(square)))
  }
}
