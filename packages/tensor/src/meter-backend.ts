import {
  NONE,
  SlothError,
  type Backend,
  type BufferHandle,
  type Memory,
  type MemoryModel,
  type RequiredKernels,
} from "@sloth/core"
import { callRecorder } from "./call-recorder.ts"

/** What a metered run would have cost. */
export interface MeterReading {
  /** Largest number of live bytes, kernel scratch included, without mapped files. */
  readonly peakBytes: number
  /** Multiply-adds counted as 2, of matrix products and attention. */
  readonly flops: number
  /** Bytes read and written by everything else. */
  readonly elementwiseBytes: number
  /** Kernel calls. */
  readonly calls: number
  /** Bytes that went to a scratch file or came from it. */
  readonly scratchBytes: number
  /** Size of the largest scratch file. */
  readonly scratchPeak: number
  /** Bytes of memory that buffers have lain in, holes between them included; `peakBytes` without a memory model. */
  readonly touchedBytes: number
  /** Bytes that kernels have taken beside their arguments and keep; 0 without a memory model. */
  readonly keptScratchBytes: number
}

/** A backend that holds and computes nothing: it counts. The planner runs the real model code on it, so that its forecast is the program's own arithmetic. */
export interface MeterBackend extends Backend {
  reading(): MeterReading
  /** Starts counting anew; live bytes and what was touched stay. */
  restart(): void
  /** Remembers what was touched; the function that comes back forgets what came since, except buffers that are still alive. None that was alive may be freed in between. */
  save(): () => void
}

/** Creates a {@link MeterBackend}. Allocation sizes are rounded as `round` says (the CPU backend's size classes); reads give zeros. */
export const createMeterBackend = (
  options: {
    round?: (bytes: number) => number
    scratchBytes?: (kernel: string, args: readonly number[]) => number
    /** How the backend that is planned for lays out buffers. */
    model?: MemoryModel
  } = {},
): MeterBackend => {
  const round = options.round ?? ((bytes: number) => Math.ceil(bytes / 64) * 64)
  /** Memory that a buffer and its views share. */
  interface Block {
    readonly bytes: number
    readonly owned: number
    address: number
    /** Number of the allocation. */
    readonly born: number
    references: number
  }
  const { model } = options
  const buffers = new Map<BufferHandle, { readonly bytes: number; readonly block: Block }>()
  const layouts = new Map<BufferHandle, Int32Array>()
  let next = 1
  let live = 0
  let peak = 0
  let mapped = 0
  let flops = 0
  let moved = 0
  let calls = 0
  let scratchBytes = 0
  let scratchPeak = 0

  const size = (h: BufferHandle): number => {
    const b = buffers.get(h)
    if (b === undefined)
      throw new SlothError("SLOTH_MEMORY_FREED", {
        what: "A buffer was used after it was freed.",
        fields: { handle: h },
      })
    return b.bytes
  }
  const memory: Memory = {
    alloc: (bytes) => {
      const owned = round(bytes)
      buffers.set(next, {
        bytes,
        block: { bytes, owned, address: model?.alloc(bytes) ?? 0, born: next, references: 1 },
      })
      live += owned
      peak = Math.max(peak, live)
      return next++
    },
    view: (parent, _offset, bytes) => {
      size(parent)
      const { block } = buffers.get(parent)!
      block.references++
      buffers.set(next, { bytes, block })
      return next++
    },
    free: (h) => {
      size(h)
      const { block } = buffers.get(h)!
      buffers.delete(h)
      layouts.delete(h)
      // A view keeps the memory of its buffer.
      if (--block.references > 0) return
      live -= block.owned
      if (block.owned > 0) model?.free(block.address, block.bytes)
    },
    bytes: size,
    write: (h, data) => {
      size(h)
      // Segment tables decide how much attention costs, so small integer buffers are remembered.
      if (data instanceof Int32Array && data.length <= 1 << 16) layouts.set(h, Int32Array.from(data))
    },
    read: (h, _offset, bytes) => Promise.resolve(new Uint8Array(bytes ?? size(h))),
    mapFile: (_path, _offset, bytes) => {
      mapped += bytes
      buffers.set(next, { bytes, block: { bytes, owned: 0, address: 0, born: next, references: 1 } })
      return next++
    },
    scratch: () => {
      const move = (h: BufferHandle, offset: number): void => {
        scratchBytes += size(h)
        scratchPeak = Math.max(scratchPeak, offset + size(h))
      }
      return { reserve: () => {}, put: move, take: move, [Symbol.dispose]: () => {} }
    },
    stats: () => ({ liveBuffers: buffers.size, liveBytes: live, peakBytes: peak, cachedBytes: 0, mappedBytes: mapped }),
    resetPeak: () => void (peak = live),
    trim: () => {},
    setBudget: () => {},
  }

  // Pairs of rows that attention visits over a forest, window respected.
  const pairs = (segments: BufferHandle, count: number, tokens: number, window: number): number => {
    const table = layouts.get(segments)
    if (table === undefined) return (tokens * (tokens + 1)) / 2
    const before: number[] = []
    let total = 0
    for (let i = 0; i < count; i++) {
      const [, length, parent] = [table[i * 3]!, table[i * 3 + 1]!, table[i * 3 + 2]!]
      const first = parent < 0 ? 0 : before[parent]!
      before.push(first + length)
      if (window <= 0) total += length * first + (length * (length + 1)) / 2
      else for (let j = 0; j < length; j++) total += Math.min(window, first + j + 1)
    }
    return total
  }
  const count = (f: number, bytes: number) => {
    flops += f
    moved += bytes
  }
  type Cost = (...args: number[]) => void
  const costs: { [K in keyof RequiredKernels]?: Cost } = {
    matmul: (_c, _a, _b, m, n, k) => count(2 * m! * n! * k!, 0),
    linear: (_y, _x, _w, _f, m, n, k, _bias, _t, _b, r) => count(2 * m! * n! * (k! + r!), 0),
    linearGroup: (_x, m, k, ...l) => {
      for (let i = 0; i < l.length; i += 9) count(2 * m! * (l[i + 3]! * (k! + l[i + 7]!) + l[i + 7]! * k!), 0)
    },
    linearBackwardInput: (_dx, _dy, _w, _f, m, n, k, _dt, _a, r) => count(2 * m! * k! * (n! + r!), 0),
    attention: (_o, _l, _q, _lq, _k, _lk, _v, _lv, s, c, tokens, heads, _kv, dim, _scale, window) =>
      count(4 * heads! * dim! * pairs(s!, c!, tokens!, window!), 0),
    attentionBackward: (
      _dq,
      _dk,
      _dv,
      _ds,
      _do,
      _o,
      _l,
      _q,
      _lq,
      _k,
      _lk,
      _v,
      _lv,
      s,
      c,
      tokens,
      heads,
      _kv,
      dim,
      _scale,
      window,
    ) => count(10 * heads! * dim! * pairs(s!, c!, tokens!, window!), 0),
    linearCrossEntropy: (_n, dh, dw, _h, _w, _f, _t, _c, rows, vocab, hidden) =>
      count(2 * rows! * vocab! * hidden! * (1 + (dh === NONE ? 0 : 1) + (dw === NONE ? 0 : 1)), 0),
    linearLogprobs: (_l, _s, _e, dh, _h, _w, _f, _t, rows, vocab, hidden) =>
      count(2 * rows! * vocab! * hidden! * (dh === NONE ? 1 : 2), 0),
    linearLogprobsBackward: (_dh, dw, _d, _l, _de, _e, _h, _w, _f, _t, rows, vocab, hidden) =>
      count(2 * rows! * vocab! * hidden! * (dw === NONE ? 2 : 3), 0),
    divergence: (_o, dz, _s, _t, _c, rows, vocab) => count(0, 4 * rows! * vocab! * (dz === NONE ? 4 : 8)),
    logits: (_o, _h, _w, _f, rows, vocab, hidden) => count(2 * rows! * vocab! * hidden!, 0),
    copy: (_o, _s, bytes) => count(0, 2 * bytes!),
    add: (_o, _a, _b, n) => count(0, 12 * n!),
    mul: (_o, _a, _b, n) => count(0, 12 * n!),
    scale: (_o, _x, _a, n) => count(0, 8 * n!),
    rmsNorm: (_y, _r, _x, _w, rows, cols) => count(0, 8 * rows! * cols!),
    rmsNormBackward: (_dx, _dw, _dy, _x, _w, _r, rows, cols) => count(0, 16 * rows! * cols!),
    rope: (_x, _ld, _c, _s, _p, rows, heads, dim) => count(0, 8 * rows! * heads! * dim!),
    gatedActivation: (_h, _g, _u, _a, n) => count(0, 12 * n!),
    gatedActivationBackward: (_dg, _du, _dh, _g, _u, _a, n) => count(0, 20 * n!),
    adamw: (_p, _g, _m, _v, n) => count(0, 28 * n!),
    adamw8bit: (_p, _g, _m, _v, _ma, _va, n) => count(0, 16 * n!),
    embedding: (_o, _w, _f, _i, rows, _v, cols) => count(0, 8 * rows! * cols!),
    sumSquares: (_o, _s, _x, n) => count(0, 4 * n!),
  }
  const recorder = callRecorder(memory)
  const kernels = new Proxy({} as RequiredKernels, {
    get: (_target, name: string) =>
      recorder.wrap((...args: number[]) => {
        calls++
        model?.kernel(name, args)
        const scratch = options.scratchBytes?.(name, args) ?? 0
        peak = Math.max(peak, live + scratch)
        ;(costs as Record<string, Cost>)[name]?.(...args)
      }),
  })
  return {
    name: "meter",
    device: {
      kind: "meter",
      description: "counts, computes nothing",
      isa: "none",
      isas: [],
      threads: 1,
      memoryBytes: Number.MAX_SAFE_INTEGER,
      precisions: ["f32"],
    },
    memory: recorder.memory,
    kernels,
    synchronize: () => {
      recorder.check("synchronize")
      return Promise.resolve()
    },
    capture: recorder.capture,
    reading: () => ({
      peakBytes: peak,
      flops,
      elementwiseBytes: moved,
      calls,
      scratchBytes,
      scratchPeak,
      touchedBytes: model?.touchedBytes() ?? peak,
      keptScratchBytes: model?.scratchBytes() ?? 0,
    }),
    save: () => {
      const restore = model?.save()
      const last = next
      return () => {
        restore?.()
        const kept = new Set(Array.from(buffers.values(), ({ block }) => block))
        for (const block of kept)
          if (block.born >= last && block.owned > 0) block.address = model?.alloc(block.bytes) ?? 0
      }
    },
    restart: () => {
      peak = live
      flops = moved = calls = scratchBytes = scratchPeak = 0
    },
    [Symbol.dispose]: () => buffers.clear(),
  }
}
