import { closeSync, existsSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import type { Engine, Linear } from "@sloth/tensor"
import { weightFormat, type Tensor } from "@sloth/tensor"
import type { CausalLM } from "@sloth/model"

/** How fast a machine runs this model's kind of work. */
export interface MachineSpeed {
  /** Multiply-adds of matrix products, counted as 2. */
  readonly flopsPerSecond: number
  /** Bytes read and written by elementwise work. */
  readonly bytesPerSecond: number
  /** Bytes written to the disk of the run and read from it; measured where the plan uses it. */
  readonly diskBytesPerSecond?: number
}

/** Runs `work` ever more often until it takes `seconds` at least; returns seconds for one. */
const timed = async (engine: Engine, seconds: number, work: () => void): Promise<number> => {
  work() // the first call packs weights and touches fresh memory
  await engine.backend.synchronize()
  for (let count = 1; ; count *= 2) {
    const started = performance.now()
    for (let i = 0; i < count; i++) work()
    await engine.backend.synchronize()
    const elapsed = (performance.now() - started) / 1000
    if (elapsed >= seconds || count >= 1 << 16) return elapsed / count
  }
}

/**
 * Measures the machine on the model's own widest frozen layer, in its own weight format, forward and backward, and on an addition of 4 MB. Takes about 0.1 s on a
 * fast backend; rows are few on a slow one.
 */
export const measureSpeed = async (model: CausalLM): Promise<MachineSpeed> => {
  const { engine } = model
  const { kernels } = engine.backend
  const layers = [...model.linears.values()]
  const size = (l: Linear) => l.inner * l.out
  const layer = layers.reduce((best, l) => (size(l) > size(best) ? l : best))
  const [n, k] = [layer.out, layer.inner]
  const weight = layer.weight.tensor
  const format = weightFormat(weight.dtype).code
  const run = async (rows: number, seconds: number): Promise<number> => {
    const made: Tensor[] = []
    const make = (shape: readonly number[]) => {
      const t = engine.keep(engine.zeros(shape))
      made.push(t)
      return t
    }
    const [x, y, dx] = [make([rows, k]), make([rows, n]), make([rows, k])]
    const one = await timed(engine, seconds, () => {
      kernels.linear(y.handle, x.handle, weight.handle, format, rows, n, k, 0, 0, 0, 0, 0)
      kernels.linearBackwardInput(dx.handle, y.handle, weight.handle, format, rows, n, k, 0, 0, 0, 0)
    })
    for (const t of made) t.dispose()
    return (4 * rows * n * k) / one
  }
  const rough = await run(8, 0.002)
  // A full-size product only where it is quick; a slow backend is as slow on few rows.
  const flopsPerSecond = (4 * 256 * n * k) / rough < 0.2 ? await run(256, 0.06) : rough

  const elements = 1 << 20
  const a = engine.keep(engine.zeros([elements]))
  const one = await timed(engine, 0.02, () => kernels.add(a.handle, a.handle, a.handle, elements))
  a.dispose()
  return { flopsPerSecond, bytesPerSecond: (12 * elements) / one }
}

/** Bytes that {@link measureDisk} writes: long enough that a disk's own cache does not answer for it, short enough for a second on a slow one. */
const DISK_BYTES = 64e6

/**
 * Measures how fast the disk of a folder takes bytes, until they are there. Reading is as fast or faster on every disk that is written to in long pieces. The folder need
 * not exist yet. Takes a second on a disk of 64 MB/s. Errors: those of the file system.
 */
export const measureDisk = (folder: string): number => {
  let place = resolve(folder)
  while (!existsSync(place) && dirname(place) !== place) place = dirname(place)
  const own = mkdtempSync(join(place, ".sloth-disk-"))
  try {
    const file = openSync(join(own, "speed"), "w")
    try {
      const block = new Uint8Array(4 << 20).fill(1)
      const started = performance.now()
      for (let written = 0; written < DISK_BYTES; written += block.length) writeSync(file, block)
      fsyncSync(file)
      return (DISK_BYTES / (performance.now() - started)) * 1000
    } finally {
      closeSync(file)
    }
  } finally {
    rmSync(own, { recursive: true, force: true })
  }
}
