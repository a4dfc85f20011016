import type { RequiredKernels } from "@sloth/core"
import { weightFormats } from "@sloth/tensor"

/** What one kernel call must do at least. */
export interface KernelCost {
  /** Name with the shape, for grouping. */
  readonly label: string
  /** Necessary multiply-adds counted as two, of matrix products and attention; 0 for the rest. */
  readonly flops: number
  /** Bytes that must be read and written once when nothing is in a cache. */
  readonly bytes: number
}

const formatOf = (code: number) => weightFormats().find((f) => f.code === code)!

/** Bytes of `elements` weights of a format code. */
export const weightBytes = (code: number, elements: number): number => {
  const f = formatOf(code)
  return (elements / f.blockSize) * f.blockBytes
}

/** Pairs of rows that causal attention visits over a forest of segments (start, length, parent), without a window. */
export const visiblePairs = (segments: Int32Array | undefined, tokens: number, window: number): number => {
  const table = segments ?? Int32Array.of(0, tokens, -1)
  const ends: number[] = []
  let total = 0
  for (let i = 0; i < table.length; i += 3) {
    const length = table[i + 1]!
    const parent = table[i + 2]!
    const before = parent < 0 ? 0 : ends[parent]!
    ends.push(before + length)
    if (window <= 0) total += length * before + (length * (length + 1)) / 2
    else for (let j = 0; j < length; j++) total += Math.min(window, before + j + 1)
  }
  return total
}

type N = readonly number[]
type Cost = (a: N, segments: (handle: number) => Int32Array | undefined) => KernelCost

const simple =
  (name: string, at: number, bytesEach: number): Cost =>
  (a) => ({ label: `${name} ${a[at]}`, flops: 0, bytes: bytesEach * a[at]! })
const rowsCols =
  (name: string, at: number, bytesEach: number): Cost =>
  (a) => ({ label: `${name} ${a[at]}x${a[at + 1]}`, flops: 0, bytes: bytesEach * a[at]! * a[at + 1]! })

/** Positions of arguments as in `RequiredKernels`. */
const COSTS: { readonly [K in keyof RequiredKernels]?: Cost } = {
  matmul: (a) => {
    const [m, n, k] = [a[3]!, a[4]!, a[5]!]
    return {
      label: `matmul ${m}x${n}x${k}${a[6] ? " aT" : ""}${a[7] ? " bT" : ""}`,
      flops: 2 * m * n * k,
      bytes: 4 * (m * n + m * k + n * k),
    }
  },
  linear: (a) => {
    const [format, m, n, k, r] = [a[3]!, a[4]!, a[5]!, a[6]!, a[10]!]
    return {
      label: `linear ${m}x${n}x${k} ${formatOf(format).id}${r > 0 ? ` r${r}` : ""}`,
      flops: 2 * m * n * (k + r),
      bytes: weightBytes(format, n * k) + 4 * (m * n + m * k + r * (m + n)),
    }
  },
  linearGroup: (a) => {
    const [m, k] = [a[1]!, a[2]!]
    let [label, flops, bytes] = [`linearGroup ${m}x(`, 0, 4 * m * k]
    for (let at = 3; at < a.length; at += 9) {
      const [format, n, r] = [a[at + 2]!, a[at + 3]!, a[at + 5] === 0 ? 0 : a[at + 7]!]
      if (n === 0) continue
      label += `${at > 3 ? "+" : ""}${n}`
      flops += 2 * m * (n * k + r * (n + k))
      bytes += weightBytes(format, n * k) + 4 * (m * n + r * (n + k))
    }
    return { label: `${label})x${k} ${formatOf(a[5]!).id}${a[8] === 0 ? "" : ` r${a[10]}`}`, flops, bytes }
  },
  linearBackwardInput: (a) => {
    const [format, m, n, k, r] = [a[3]!, a[4]!, a[5]!, a[6]!, a[9]!]
    return {
      label: `linearBackwardInput ${m}x${n}x${k} ${formatOf(format).id}${r > 0 ? ` r${r}` : ""}`,
      flops: 2 * m * k * (n + r),
      bytes: weightBytes(format, n * k) + 4 * (m * n + m * k + r * (m + k)),
    }
  },
  logits: (a) => {
    const [format, rows, vocab, hidden] = [a[3]!, a[4]!, a[5]!, a[6]!]
    return {
      label: `logits ${rows}x${vocab}x${hidden} ${formatOf(format).id}`,
      flops: 2 * rows * vocab * hidden,
      bytes: weightBytes(format, vocab * hidden) + 4 * rows * (vocab + hidden),
    }
  },
  attention: (a, segments) => {
    const [tokens, heads, kvHeads, dim, window] = [a[10]!, a[11]!, a[12]!, a[13]!, a[15]!]
    return {
      label: `attention ${tokens} tokens, ${a[9]} texts, ${heads}/${kvHeads}x${dim}`,
      flops: 4 * heads * dim * visiblePairs(segments(a[8]!), tokens, window),
      bytes: 4 * tokens * dim * (2 * heads + 2 * kvHeads),
    }
  },
  attentionBackward: (a, segments) => {
    const [tokens, heads, kvHeads, dim, window] = [a[15]!, a[16]!, a[17]!, a[18]!, a[20]!]
    return {
      label: `attentionBackward ${tokens} tokens, ${a[14]} texts, ${heads}/${kvHeads}x${dim}`,
      flops: 10 * heads * dim * visiblePairs(segments(a[13]!), tokens, window),
      bytes: 4 * tokens * dim * (4 * heads + 4 * kvHeads),
    }
  },
  linearCrossEntropy: (a) => {
    const [format, rows, vocab, hidden] = [a[5]!, a[8]!, a[9]!, a[10]!]
    const products = 1 + (a[1] === 0 ? 0 : 1) + (a[2] === 0 ? 0 : 1)
    return {
      label: `linearCrossEntropy ${rows}x${vocab}x${hidden} ${formatOf(format).id}${a[1] === 0 ? "" : " dh"}${a[2] === 0 ? "" : " dw"}`,
      flops: 2 * rows * vocab * hidden * products,
      bytes: weightBytes(format, vocab * hidden) + 8 * rows * hidden,
    }
  },
  linearLogprobs: (a) => {
    const [format, rows, vocab, hidden] = [a[6]!, a[8]!, a[9]!, a[10]!]
    return {
      label: `linearLogprobs ${rows}x${vocab}x${hidden} ${formatOf(format).id}${a[3] === 0 ? "" : " dh"}`,
      flops: 2 * rows * vocab * hidden * (a[3] === 0 ? 1 : 2),
      bytes: weightBytes(format, vocab * hidden) + (a[3] === 0 ? 4 : 8) * rows * hidden,
    }
  },
  pagedAttention: (a) => ({
    label: `pagedAttention ${a[11]} rows, ${a[12]}/${a[13]}x${a[14]}`,
    flops: 0,
    bytes: 8 * a[11]! * a[12]! * a[14]!,
  }),
  sample: (a) => ({ label: `sample ${a[3]}x${a[4]}`, flops: 0, bytes: 4 * a[3]! * a[4]! }),
  add: simple("add", 3, 12),
  mul: simple("mul", 3, 12),
  fill: simple("fill", 2, 4),
  scale: simple("scale", 3, 8),
  copy: simple("copy", 2, 2),
  rmsNorm: rowsCols("rmsNorm", 4, 8),
  rmsNormBackward: rowsCols("rmsNormBackward", 6, 12),
  gatherRows: rowsCols("gatherRows", 3, 8),
  scatterRows: rowsCols("scatterRows", 3, 8),
  rope: (a) => ({ label: `rope ${a[5]}x${a[6]}x${a[7]}`, flops: 0, bytes: 8 * a[5]! * a[6]! * a[7]! }),
  gatedActivation: simple("gatedActivation", 4, 12),
  gatedActivationBackward: simple("gatedActivationBackward", 6, 20),
  embedding: (a) => ({
    label: `embedding ${a[4]}x${a[6]} ${formatOf(a[2]!).id}`,
    flops: 0,
    bytes: weightBytes(a[2]!, a[4]! * a[6]!) + 4 * a[4]! * a[6]!,
  }),
  adamw: simple("adamw", 4, 28),
  adamw8bit: simple("adamw8bit", 6, 16),
  sumSquares: simple("sumSquares", 3, 4),
  cacheWrite: (a) => ({
    label: `cacheWrite ${a[8]}x${a[9]}`,
    flops: 0,
    bytes: 8 * a[8]! * a[9]! + 2 * weightBytes(a[2]!, a[8]! * a[9]!),
  }),
}

/** The cost of a call; kernels that are not listed cost nothing that is counted. */
export const kernelCost = (
  name: string,
  args: readonly number[],
  segments: (handle: number) => Int32Array | undefined,
): KernelCost =>
  (COSTS as Readonly<Record<string, Cost>>)[name]?.(args, segments) ?? { label: name, flops: 0, bytes: 0 }
