import { expect, test } from "bun:test"
import { arenaModel, createCpuBackend } from "./index.ts"

// Beside the slots of the model, each of two workers keeps panels and strips, and small slots hold tables: less than 5 MB together.
const REST = 5e6

for (const [name, rows, vocab, hidden, trained] of [
  ["few rows", 20, 50_000, 64, false],
  ["a pass", 510, 30_000, 96, false],
  ["rows of several blocks", 1300, 20_000, 160, false],
  ["a wide model", 512, 3000, 1600, false],
  ["a trained output layer", 300, 40_000, 16, true],
] as const)
  test(`kernels of the loss keep what the model says: ${name}`, async () => {
    using backend = await createCpuBackend({ threads: 2 })
    const { memory, kernels } = backend
    const model = arenaModel()
    const live: number[] = []
    const floats = (n: number): number => {
      const h = memory.alloc(n * 4)
      model.alloc(n * 4)
      kernels.fill(h, 0, n)
      live.push(h)
      return h
    }
    const [nll, dh, h, w] = [floats(rows), floats(rows * hidden), floats(rows * hidden), floats(vocab * hidden)]
    const [dw, targets, coef] = [trained ? floats(vocab * hidden) : 0, floats(rows), floats(rows)]
    const args = [nll, dh, dw, h, w, 0, targets, coef, rows, vocab, hidden, 0, 1] as const
    kernels.linearCrossEntropy(...args)
    model.kernel("linearCrossEntropy", args)
    await backend.synchronize()
    for (const handle of live) memory.free(handle)
    // Nothing is in use, so this is what buffers have touched and what kernels keep.
    const kept = memory.stats().cachedBytes - model.touchedBytes()
    expect(kept).toBeGreaterThanOrEqual(model.scratchBytes())
    expect(kept).toBeLessThan(model.scratchBytes() + REST)
  })
