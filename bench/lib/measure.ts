import type { Backend } from "@sloth/core"
import type { Bar, Figure } from "./figures.ts"
import type { Peaks } from "./peaks.ts"
import { median, spread } from "./stats.ts"

/** One kernel call to measure. */
export interface KernelCase {
  readonly group: string
  readonly name: string
  /** Colour in the roofline plot. */
  readonly series: string
  /** Necessary operations of a call. */
  readonly flops: number
  /** Bytes a call must move through memory. */
  readonly bytes: number
  /** Enqueues call number `i`. */
  readonly enqueue: (i: number) => void
  readonly bar?: Bar
}

/** How long and how often is measured. */
export interface MeasureOptions {
  readonly threads: number
  readonly rounds: number
  /** Seconds of a sample, at least one call. */
  readonly sampleSeconds: number
}

/**
 * Measures a case in rounds. Each round measures the limits that could bind (arithmetic, bandwidth) and then the kernel, for equally long, and the score is the median of the rounds' own
 * fractions: on a machine shared with others both sides of the fraction suffer alike. (Equally long, because a scheduler favours short bursts.)
 */
export const measureCase = async (
  backend: Backend,
  peaks: Peaks,
  c: KernelCase,
  options: MeasureOptions,
): Promise<Figure> => {
  const { threads, rounds, sampleSeconds } = options
  let call = 0
  c.enqueue(call++)
  await backend.synchronize()
  let started = performance.now()
  c.enqueue(call++)
  await backend.synchronize()
  const once = (performance.now() - started) / 1000
  const repeats = Math.max(1, Math.min(20_000, Math.ceil(sampleSeconds / Math.max(once, 1e-6))))
  const peakSeconds = Math.max(0.02, Math.min(0.2, repeats * once))
  const rates: number[] = []
  const scores: number[] = []
  for (let round = 0; round < rounds; round++) {
    const f32 = c.flops > 0 ? await peaks.measure("f32", threads, peakSeconds) : Number.POSITIVE_INFINITY
    const read = c.bytes > 0 ? await peaks.measure("read", threads, peakSeconds) : Number.POSITIVE_INFINITY
    c.enqueue(call++)
    await backend.synchronize()
    started = performance.now()
    for (let i = 0; i < repeats; i++) c.enqueue(call++)
    await backend.synchronize()
    const seconds = (performance.now() - started) / 1000 / repeats
    const least = Math.max(c.flops / f32, c.bytes / read)
    rates.push((c.flops > 0 ? c.flops : c.bytes) / seconds)
    scores.push(least / seconds)
  }
  const compute = c.flops > 0
  const value = spread(rates.map((r) => r / 1e9))
  return {
    section: "kernels",
    group: c.group,
    name: c.name,
    value,
    unit: compute ? "GFLOP/s" : "GB/s",
    score: median(scores),
    scoreOf: compute ? "of limit" : "of read bandwidth",
    ...(c.bar === undefined ? {} : { bar: c.bar }),
    ...(compute ? { roof: { flopsPerByte: c.flops / c.bytes, flopsPerSecond: median(rates), series: c.series } } : {}),
  }
}
