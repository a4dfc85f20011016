import { NONE, type RequiredKernels } from "@sloth/core"
import { weightFormats } from "@sloth/tensor"

import { Data, whole } from "../data.ts"
import { F32, productMagnitude, sumError, transpose } from "../tolerance.ts"
import type { KernelCase, Twin, TwinArguments } from "../twin.ts"

type Cases<N extends keyof RequiredKernels> = Record<N, KernelCase[]>

/** Formats that can make test weights. */
export const testFormats = () => weightFormats().filter((format) => format.quantizeRow !== undefined)

/** Shapes [m, n, k] around the edges of register tiles and cache blocks; k is rounded up to whole blocks of a format. */
const SHAPES: readonly (readonly [number, number, number])[] = [
  [1, 1, 1],
  [1, 33, 5],
  [5, 1, 33],
  [5, 123, 33],
  [33, 5, 123],
  [123, 33, 5],
  [1, 130, 257],
  [70, 49, 130],
  [13, 35, 1030],
]

/** A LoRA's rank against a width that several tasks share. */
const RANK_SHAPES: typeof SHAPES = [
  [16, 410, 150],
  [410, 17, 150],
]

const add = (a: Float64Array, b: ArrayLike<number>): Float64Array => a.map((value, i) => value + Math.abs(b[i]!))

/** Cases of the matrix products, in every weight format. */
export const productCases: Cases<"matmul" | "linear" | "linearGroup" | "linearBackwardInput"> = {
  matmul: [...SHAPES, ...RANK_SHAPES].flatMap(([m, n, k]) =>
    [0, 1, 2, 3].map((mode) => ({
      label: `${m}x${n}x${k}${mode & 1 ? ", a transposed" : ""}${mode & 2 ? ", b transposed" : ""}`,
      async run(t: Twin) {
        const d = new Data(m + n + k + mode)
        const [a, b, c] = [d.floats(m * k), d.floats(n * k), d.floats(m * n)]
        const [transA, transB] = [mode & 1, mode >> 1]
        // a is [m, k] and b [n, k]; they are stored as the flags ask.
        const left = t.floats(transA ? transpose(a, m, k) : a)
        const right = t.floats(transB ? b : transpose(b, n, k))
        const magnitude = productMagnitude(a, b, m, n, k)
        const out = t.output(m * n, c)
        for (const [alpha, accumulate] of [
          [0.7, 1],
          [1, 0],
        ] as const) {
          const terms = accumulate ? add(magnitude, t.exact(out)) : magnitude
          t.call("matmul", out, left, right, m, n, k, transA, transB, alpha, accumulate)
          await t.compare(out, (i) => sumError(k + 1, terms[i]!, t.epsilon), `matmul alpha ${alpha}`)
        }
      },
    })),
  ),

  linear: testFormats().flatMap((format) =>
    SHAPES.map(([m, n, wanted], index) => {
      const k = whole(wanted, format.blockSize)
      const r = [1, 4, 5, 8, 16, 3, 33, 7, 2][index]!
      return {
        label: `${format.id} ${m}x${n}x${k} rank ${r}`,
        async run(t: Twin) {
          const d = new Data(m + n + k + format.code)
          const x = d.floats(m * k)
          const w = d.weight(format.code, n, k)
          const [bias, low, up, y] = [d.floats(n), d.floats(m * r), d.floats(n * r), d.floats(m * n)]
          const [source, weight] = [t.floats(x), t.bytes(w.bytes)]
          const [offset, left, right] = [t.floats(bias), t.floats(low), t.floats(up)]
          const base = productMagnitude(x, w.values, m, n, k)
          const adapter = productMagnitude(low, up, m, n, r)
          // All uses of the optional arguments: bare, bias, adapter, both, and added to y.
          for (let mode = 0; mode < 8; mode++) {
            const [hasBias, hasAdapter, accumulate] = [mode & 1, (mode >> 1) & 1, mode >> 2]
            const out = accumulate ? t.output(m * n, y) : t.output(m * n)
            t.call(
              "linear",
              out,
              source,
              weight,
              format.code,
              m,
              n,
              k,
              hasBias ? offset : NONE,
              hasAdapter ? left : NONE,
              hasAdapter ? right : NONE,
              hasAdapter ? r : 0,
              accumulate,
            )
            await t.compare(
              out,
              (i) =>
                sumError(
                  k + r + 2,
                  base[i]! + hasAdapter * adapter[i]! + hasBias * Math.abs(bias[i % n]!) + accumulate * Math.abs(y[i]!),
                  t.epsilon,
                ),
              `linear${hasBias ? " bias" : ""}${hasAdapter ? " adapter" : ""}${accumulate ? " added" : ""}`,
            )
          }
        },
      }
    }),
  ),

  linearGroup: testFormats().flatMap((format) =>
    SHAPES.map(([m, n, wanted], index) => {
      // The second layer has a format of its own: what is shared between layers must not depend on the first one's.
      const others = testFormats()
      const second = others[(others.indexOf(format) + 1) % others.length]!
      const k = whole(whole(wanted, format.blockSize), second.blockSize)
      const ranks = [[1, 4, 5, 8, 16, 3, 33, 7, 2][index]!, 8, 3] as const
      const widths = [n, n + 7, Math.max(1, n - 3)] as const
      return {
        label: `${format.id} and ${second.id} ${m}x${n}x${k} rank ${ranks[0]}`,
        async run(t: Twin) {
          const d = new Data(m + n + k + format.code + 1)
          const x = d.floats(m * k)
          const source = t.floats(x)
          const layers = widths.map((width, i) => {
            const stored = i === 1 ? second : format
            const w = d.weight(stored.code, width, k)
            const [bias, a, b] = [d.floats(width), d.floats(ranks[i]! * k), d.floats(width * ranks[i]!)]
            const low = productMagnitude(x, a, m, ranks[i]!, k)
            return {
              code: stored.code,
              width,
              bias,
              base: productMagnitude(x, w.values, m, width, k),
              adapter: productMagnitude(low, b, m, width, ranks[i]!),
              weight: t.bytes(w.bytes),
              offset: t.floats(bias),
              down: t.floats(a),
              up: t.floats(b),
            }
          })
          const scale = 0.75
          // One to three layers, bare, with bias, with adapters, and with both; adapters also on some of them only.
          for (const [count, biases, adapters] of [
            [3, 7, 7],
            [1, 0, 0],
            [2, 0, 0],
            [3, 1, 0],
            [1, 0, 1],
            [3, 2, 5],
          ] as const) {
            const args: (number | ReturnType<Twin["output"]>)[] = []
            const outputs = layers.map((l, i) => {
              if (i >= count) {
                args.push(NONE, NONE, 0, 0, NONE, NONE, NONE, 0, 0)
                return undefined
              }
              const [hasBias, hasAdapter] = [(biases >> i) & 1, (adapters >> i) & 1]
              const out = t.output(m * l.width)
              args.push(out, l.weight, l.code, l.width, hasBias ? l.offset : NONE)
              args.push(hasAdapter ? l.down : NONE, hasAdapter ? l.up : NONE, hasAdapter ? ranks[i]! : 0, scale)
              return { ...l, out, hasBias, hasAdapter, rank: ranks[i]! }
            })
            t.call("linearGroup", ...([source, m, k, ...args] as unknown as TwinArguments<"linearGroup">))
            for (const o of outputs)
              if (o !== undefined)
                await t.compare(
                  o.out,
                  // The low-rank product is rounded twice: once when x · Aᵀ is made and once in the sum over the rank.
                  (i) =>
                    sumError(
                      2 * k + o.rank + 3,
                      o.base[i]! + o.hasAdapter * scale * o.adapter[i]! + o.hasBias * Math.abs(o.bias[i % o.width]!),
                      t.epsilon,
                    ),
                  `linearGroup of ${count}${o.hasBias ? " bias" : ""}${o.hasAdapter ? " adapter" : ""}`,
                )
          }
        },
      }
    }),
  ),

  linearBackwardInput: testFormats().flatMap((format) =>
    SHAPES.map(([m, n, wanted], index) => {
      const k = whole(wanted, format.blockSize)
      const r = [1, 4, 5, 8, 16, 3, 33, 7, 2][index]!
      return {
        label: `${format.id} ${m}x${n}x${k} rank ${r}`,
        async run(t: Twin) {
          const d = new Data(m + n + k + format.code)
          const dy = d.floats(m * n)
          const w = d.weight(format.code, n, k)
          const [low, down, dx] = [d.floats(m * r), d.floats(r * k), d.floats(m * k)]
          const [gradient, weight, left, right] = [t.floats(dy), t.bytes(w.bytes), t.floats(low), t.floats(down)]
          const base = productMagnitude(dy, transpose(w.values, n, k), m, k, n)
          const adapter = productMagnitude(low, transpose(down, r, k), m, k, r)
          for (let mode = 0; mode < 4; mode++) {
            const [hasAdapter, accumulate] = [mode & 1, mode >> 1]
            const out = accumulate ? t.output(m * k, dx) : t.output(m * k)
            t.call(
              "linearBackwardInput",
              out,
              gradient,
              weight,
              format.code,
              m,
              n,
              k,
              hasAdapter ? left : NONE,
              hasAdapter ? right : NONE,
              hasAdapter ? r : 0,
              accumulate,
            )
            await t.compare(
              out,
              (i) =>
                sumError(n + r + 1, base[i]! + hasAdapter * adapter[i]! + accumulate * Math.abs(dx[i]!), t.epsilon),
              `linearBackwardInput${hasAdapter ? " adapter" : ""}${accumulate ? " added" : ""}`,
            )
          }
        },
      }
    }),
  ),
}

/** Cases of storing, looking up and moving rows. */
export const rowCases: Cases<
  "dequantize" | "quantize" | "embedding" | "embeddingBackward" | "gatherRows" | "scatterRows"
> = {
  dequantize: testFormats().flatMap((format) =>
    [
      [1, 1],
      [5, 33],
      [123, 257],
    ].map(([rows, wanted]) => {
      const cols = whole(wanted!, format.blockSize)
      return {
        label: `${format.id} ${rows}x${cols}`,
        async run(t: Twin) {
          const w = new Data(cols + format.code).weight(format.code, rows!, cols, 3)
          const out = t.output(rows! * cols)
          t.call("dequantize", out, t.bytes(w.bytes), format.code, rows!, cols)
          // d · q + m has two roundings; q is at most 16 steps of d.
          await t.compare(out, (i) => 2 * F32 * (Math.abs(w.values[i]!) + 16), "dequantize")
        },
      }
    }),
  ),

  quantize: testFormats().flatMap((format) =>
    [
      [1, 1],
      [5, 33],
      [40, 257],
    ].map(([rows, wanted]) => {
      const cols = whole(wanted!, format.blockSize)
      return {
        label: `${format.id} ${rows}x${cols}`,
        async run(t: Twin) {
          const d = new Data(cols + format.code)
          const x = d.floats(rows! * cols, 2)
          // A row of zeros, and one of equal numbers: scales of zero.
          if (rows! > 2) x.fill(0, 0, cols).fill(0.3, cols, 2 * cols)
          const out = t.outputBytes((rows! * cols * format.blockBytes) / format.blockSize)
          t.call("quantize", out, t.floats(x), format.code, rows!, cols)
          await t.same(out, `quantize ${format.id}`)
        },
      }
    }),
  ),

  embedding: testFormats().flatMap((format) =>
    [
      [1, 7, 1],
      [33, 123, 33],
      [123, 40, 257],
    ].map(([rows, vocab, wanted]) => {
      const cols = whole(wanted!, format.blockSize)
      return {
        label: `${format.id} ${rows} of ${vocab}x${cols}`,
        async run(t: Twin) {
          const d = new Data(cols + format.code)
          const w = d.weight(format.code, vocab!, cols)
          const ids = d.integers(rows!, vocab!)
          ids[0] = vocab! - 1
          const out = t.output(rows! * cols)
          t.call("embedding", out, t.bytes(w.bytes), format.code, t.integers(ids), rows!, vocab!, cols, 1.5)
          await t.compare(out, 4 * F32 * 1.5 * 20, "embedding")
        },
      }
    }),
  ),

  embeddingBackward: [
    [1, 7, 1],
    [33, 5, 33],
    [123, 400, 70],
  ].map(([rows, vocab, cols]) => ({
    label: `${rows} of ${vocab}x${cols}`,
    async run(t) {
      const d = new Data(rows!)
      const ids = d.integers(rows!, vocab!)
      const dy = d.floats(rows! * cols!)
      const dw = d.floats(vocab! * cols!)
      const out = t.output(dw.length, dw)
      t.call("embeddingBackward", out, t.floats(dy), t.integers(ids), rows!, vocab!, cols!, 0.7)
      await t.compare(out, (i) => duplicates(ids, Math.floor(i / cols!)) * 16 * F32 * 6, "embeddingBackward")
    },
  })),

  gatherRows: [
    [1, 1, 1],
    [33, 5, 123],
    [5, 123, 33],
    [300, 200, 257],
  ].map(([rows, available, cols]) => ({
    label: `${rows} of ${available}x${cols}`,
    async run(t) {
      const d = new Data(rows!)
      const out = t.output(rows! * cols!)
      const index = d.integers(rows!, available!)
      index[0] = available! - 1
      t.call("gatherRows", out, t.floats(d.floats(available! * cols!)), t.integers(index), rows!, cols!)
      await t.same(out, "gatherRows")
    },
  })),

  scatterRows: [
    [1, 1, 1],
    [5, 33, 123],
    [33, 5, 7],
    [200, 300, 257],
  ].map(([rows, outRows, cols]) => ({
    label: `${rows} into ${outRows}x${cols}`,
    async run(t) {
      const d = new Data(rows!)
      // With more rows than places some share one: they add up.
      const index = d.integers(rows!, outRows!)
      const [x, y] = [d.floats(rows! * cols!), d.floats(outRows! * cols!)]
      const [source, where, out] = [t.floats(x), t.integers(index), t.output(y.length, y)]
      const allowed = (i: number): number => duplicates(index, Math.floor(i / cols!)) * 16 * F32 * 6
      t.call("scatterRows", out, source, where, rows!, cols!, outRows!, 1)
      await t.compare(out, allowed, "scatterRows added")
      t.call("scatterRows", out, source, where, rows!, cols!, outRows!, 0)
      await t.compare(out, allowed, "scatterRows")
    },
  })),
}

/** How many of the indices are `row`. */
const duplicates = (index: Int32Array, row: number): number => index.filter((value) => value === row).length
