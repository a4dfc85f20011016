import type { MemoryModel } from "@sloth/core"
import { ScratchModel } from "./scratch-model.ts"

const PAGE = 4096
/** Requests up to this many bytes come from lists of equal blocks. */
const SMALL_LIMIT = 65_536
/** Address space that the arena takes from the system at a time. */
const SEGMENT_BYTES = 128 * 2 ** 20

const up = (n: number, to: number): number => Math.ceil(n / to) * to

/** Size of the block that serves a small request: steps of 64 bytes up to 1,024, then eight a doubling. */
const smallBytes = (bytes: number): number => {
  if (bytes <= 1024) return Math.max(1, Math.ceil(bytes / 64)) * 64
  const base = 2 ** (31 - Math.clz32(bytes - 1))
  return base + Math.ceil((bytes - base) / (base / 8)) * (base / 8)
}

interface Range {
  readonly from: number
  readonly bytes: number
}

/** Free ranges, found by address and by size. */
class FreeRanges {
  /** By address. */
  #at: Range[] = []
  /** By size, then address. */
  #sized: Range[] = []

  static #index(list: readonly Range[], before: (r: Range) => boolean): number {
    let [low, high] = [0, list.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (before(list[middle]!)) low = middle + 1
      else high = middle
    }
    return low
  }
  static #bySize(a: Range): (r: Range) => boolean {
    return (r) => r.bytes < a.bytes || (r.bytes === a.bytes && r.from < a.from)
  }

  add(range: Range): void {
    this.#at.splice(
      FreeRanges.#index(this.#at, (r) => r.from < range.from),
      0,
      range,
    )
    this.#sized.splice(FreeRanges.#index(this.#sized, FreeRanges.#bySize(range)), 0, range)
  }

  remove(range: Range): void {
    this.#at.splice(
      FreeRanges.#index(this.#at, (r) => r.from < range.from),
      1,
    )
    this.#sized.splice(FreeRanges.#index(this.#sized, FreeRanges.#bySize(range)), 1)
  }

  save(): () => void {
    const [at, sized] = [[...this.#at], [...this.#sized]]
    return () => {
      this.#at = [...at]
      this.#sized = [...sized]
    }
  }

  /** The smallest range that holds `bytes`, the lowest of equal ones. */
  fit(bytes: number): Range | undefined {
    return this.#sized[FreeRanges.#index(this.#sized, (r) => r.bytes < bytes)]
  }

  /** The ranges that end where another begins and begin where it ends. */
  beside(from: number, bytes: number): readonly [before: Range | undefined, after: Range | undefined] {
    const i = FreeRanges.#index(this.#at, (r) => r.from < from)
    const [before, after] = [this.#at[i - 1], this.#at[i]]
    return [
      before !== undefined && before.from + before.bytes === from ? before : undefined,
      after !== undefined && after.from === from + bytes ? after : undefined,
    ]
  }
}

/**
 * The arena of the native backend (native/memory.cpp) without memory: where every buffer of a program would lie, and so how much of the address space it touches. Holes between
 * buffers of unequal size are a tenth of a training step's memory, and depend on nothing but the order of its allocations.
 */
export const arenaModel = (): MemoryModel => {
  const free = new FreeRanges()
  /** End of the part of each segment that was ever handed out, by the segment's number; segments lie far apart, so that ranges of two never touch. */
  let high: number[] = []
  const APART = 2 ** 44
  let small = new Map<number, number[]>()
  let touched = 0
  const scratch = new ScratchModel()

  const takeLarge = (bytes: number): number => {
    let fit = free.fit(bytes)
    if (fit === undefined) {
      // The system hands out address space from the top down.
      high.push(0)
      fit = { from: -high.length * APART, bytes: Math.max(SEGMENT_BYTES, up(bytes, 2 ** 21)) }
      free.add(fit)
    }
    free.remove(fit)
    if (fit.bytes > bytes) free.add({ from: fit.from + bytes, bytes: fit.bytes - bytes })
    const segment = -Math.floor(fit.from / APART) - 1
    const end = fit.from + (segment + 1) * APART + bytes
    touched += Math.max(0, end - high[segment]!)
    high[segment] = Math.max(high[segment]!, end)
    return fit.from
  }
  const giveLarge = (from: number, bytes: number): void => {
    const [before, after] = free.beside(from, bytes)
    if (before !== undefined) free.remove(before)
    if (after !== undefined) free.remove(after)
    free.add({
      from: before?.from ?? from,
      bytes: bytes + (before?.bytes ?? 0) + (after?.bytes ?? 0),
    })
  }

  return {
    alloc: (bytes) => {
      if (bytes > SMALL_LIMIT) return takeLarge(up(bytes, PAGE))
      const size = smallBytes(bytes)
      let list = small.get(size)
      if (list === undefined) small.set(size, (list = []))
      if (list.length === 0) {
        const chunk = up(Math.min(Math.max(size * 16, 16_384), 524_288), PAGE)
        const base = takeLarge(chunk)
        for (let at = Math.floor(chunk / size); at > 0; at--) list.push(base + (at - 1) * size)
      }
      return list.pop()!
    },
    free: (address, bytes) => {
      if (bytes > SMALL_LIMIT) giveLarge(address, up(bytes, PAGE))
      else small.get(smallBytes(bytes))!.push(address)
    },
    kernel: (name, args) => scratch.call(name, args),
    touchedBytes: () => touched,
    scratchBytes: () => scratch.bytes,
    save: () => {
      const [ranges, slots] = [free.save(), scratch.save()]
      const lists = () => new Map(Array.from(small, ([size, list]) => [size, [...list]] as [number, number[]]))
      const was = { high: [...high], small: lists(), touched }
      return () => {
        ranges()
        slots()
        high = [...was.high]
        small = was.small
        was.small = lists()
        touched = was.touched
      }
    },
  }
}
