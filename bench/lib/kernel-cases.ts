import { NONE, type BufferHandle } from "@sloth/core"
import { bytesFor, SequenceLayout, weightFormat, type Engine, type Tensor } from "@sloth/tensor"
import { visiblePairs, weightBytes } from "./kernel-cost.ts"
import type { KernelCase } from "./measure.ts"
import { instructionRows } from "./rows.ts"
import { matricesOf, SHAPES, type ShapeId } from "./shapes.ts"

/** A group of cases: made when its turn comes, and freed after it. */
export type CaseMaker = (engine: Engine) => Generator<KernelCase, void, undefined>

/** Bytes of weights that the cases with few rows walk through, so that they are read from memory and not from a cache, as while decoding. */
const STREAM_BYTES = 192 * 2 ** 20

const normal = (engine: Engine, shape: readonly number[], std: number, stream: number): Tensor => {
  const t = engine.empty(shape)
  engine.backend.kernels.randomNormal(t.handle, 0, std, t.size, 11, stream)
  return t
}

/** Equal matrices of a format, one behind the other. */
const streamOfWeights = (engine: Engine, format: string, rows: number, cols: number, total: number) => {
  const { kernels, memory } = engine.backend
  const f = weightFormat(format)
  const bytes = bytesFor(f, rows * cols)
  // Aligned as tensors in files are.
  const stride = Math.ceil(bytes / 64) * 64
  const count = Math.max(1, Math.ceil(total / stride))
  const whole = memory.alloc(stride * count)
  const views: BufferHandle[] = []
  for (let i = 0; i < count; i++) views.push(memory.view(whole, i * stride, bytes))
  engine.scope(() => {
    const values = normal(engine, [rows, cols], 1 / Math.sqrt(cols), 1)
    kernels.quantize(views[0]!, values.handle, f.code, rows, cols)
  })
  for (let i = 1; i < count; i++) kernels.copy(views[i]!, views[0]!, bytes)
  return {
    code: f.code,
    views,
    free: () => {
      for (const v of views) memory.free(v)
      memory.free(whole)
    },
  }
}

/** What the products are measured on. */
export interface ProductSelection {
  readonly shapes: readonly ShapeId[]
  readonly formats: readonly string[]
  readonly rows: readonly number[]
}

const SKINNY_FORMATS = ["q4_0", "q4_1", "q8_0"]

/** y = x · Wᵀ and dx = dy · W at the matrices of real models. */
export const products = ({ shapes, formats, rows }: ProductSelection): CaseMaker =>
  function* (engine) {
    const { kernels } = engine.backend
    for (const id of shapes)
      for (const { part, out, inner } of matricesOf(id))
        for (const format of formats) {
          const weights = streamOfWeights(engine, format, out, inner, STREAM_BYTES)
          for (const m of rows) {
            const x = engine.keep(normal(engine, [m, inner], 1, 2))
            const dy = engine.keep(normal(engine, [m, out], 1, 3))
            const y = engine.keep(engine.empty([m, out]))
            const dx = engine.keep(engine.empty([m, inner]))
            const flops = 2 * m * out * inner
            const bytes = weightBytes(weights.code, out * inner) + 4 * m * (out + inner)
            const pick = (i: number) => weights.views[i % weights.views.length]!
            const bar =
              m >= 512
                ? { must: 0.85, aim: 0.93 }
                : (m === 1 || m === 8) && SKINNY_FORMATS.includes(format)
                  ? { must: 0.75, aim: 0.88 }
                  : undefined
            const label = `${SHAPES[id].name} ${part} ${out}x${inner}`
            yield {
              group: `linear, ${format}, ${m} row${m === 1 ? "" : "s"}`,
              name: label,
              series: format,
              flops,
              bytes,
              enqueue: (i) => kernels.linear(y.handle, x.handle, pick(i), weights.code, m, out, inner, 0, 0, 0, 0, 0),
              ...(bar === undefined ? {} : { bar }),
            }
            if (m >= 512)
              yield {
                group: `linear backward, ${format}, ${m} rows`,
                name: label,
                series: format,
                flops,
                bytes,
                enqueue: (i) =>
                  kernels.linearBackwardInput(dx.handle, dy.handle, pick(i), weights.code, m, out, inner, 0, 0, 0, 0),
                ...(bar === undefined ? {} : { bar }),
              }
            for (const t of [x, dy, y, dx]) t.dispose()
          }
          weights.free()
        }
  }

/** The LoRA linear layer as it runs in training, forward and backward: the frozen product and the four low-rank ones. */
export const loraProducts = (shapes: readonly ShapeId[], format: string, m: number, r = 16): CaseMaker =>
  function* (engine) {
    const { kernels } = engine.backend
    for (const id of shapes)
      for (const { part, out, inner } of matricesOf(id)) {
        const weights = streamOfWeights(engine, format, out, inner, 1)
        const w = weights.views[0]!
        const [x, dy] = [normal(engine, [m, inner], 1, 2), normal(engine, [m, out], 1, 3)]
        const [a, b] = [normal(engine, [r, inner], 0.05, 4), normal(engine, [out, r], 0.05, 5)]
        const [y, dx, t, dt] = [
          [m, out],
          [m, inner],
          [m, r],
          [m, r],
        ].map((s) => engine.empty(s))
        const [da, db] = [engine.empty([r, inner]), engine.empty([out, r])]
        const all = [x, dy, a, b, y!, dx!, t!, dt!, da, db].map((v) => engine.keep(v))
        const common = {
          series: `${format} LoRA`,
          bytes: weightBytes(weights.code, out * inner) + 4 * m * (out + inner),
        }
        const name = `${SHAPES[id].name} ${part} ${out}x${inner}`
        yield {
          ...common,
          group: `LoRA r${r} forward, ${format}, ${m} rows`,
          name,
          flops: 2 * m * (out * inner + r * (out + inner)),
          enqueue: () => {
            kernels.matmul(t!.handle, x.handle, a.handle, m, r, inner, 0, 1, 2, 0)
            kernels.linear(y!.handle, x.handle, w, weights.code, m, out, inner, 0, t!.handle, b.handle, r, 0)
          },
        }
        yield {
          ...common,
          group: `LoRA r${r} backward, ${format}, ${m} rows`,
          name,
          flops: 2 * m * (out * inner + 2 * r * (out + inner)),
          enqueue: () => {
            kernels.matmul(dt!.handle, dy.handle, b.handle, m, r, out, 0, 0, 2, 0)
            kernels.matmul(db.handle, dy.handle, t!.handle, out, r, m, 1, 0, 1, 0)
            kernels.matmul(da.handle, dt!.handle, x.handle, r, inner, m, 1, 0, 1, 0)
            kernels.linearBackwardInput(
              dx!.handle,
              dy.handle,
              w,
              weights.code,
              m,
              out,
              inner,
              dt!.handle,
              a.handle,
              r,
              0,
            )
          },
        }
        for (const v of all) v.dispose()
        weights.free()
      }
  }

/** Attention forward and backward: one long text, and texts of uneven lengths packed one after the other. */
export const attentions = (tokens: number): CaseMaker =>
  function* (engine) {
    const { kernels } = engine.backend
    const uneven: number[] = []
    for (const { tokens: t } of instructionRows(64, 1024)) {
      const left = tokens - uneven.reduce((a, b) => a + b, 0)
      if (left > 0) uneven.push(Math.min(left, t.length))
    }
    const layouts = [
      { name: `${tokens} tokens, causal`, lengths: [tokens], barred: true },
      { name: `${uneven.length} texts of uneven length, ${tokens} tokens`, lengths: uneven, barred: false },
    ]
    for (const { heads, kvHeads, dim } of [
      { heads: 9, kvHeads: 3, dim: 64 },
      { heads: 32, kvHeads: 8, dim: 64 },
    ])
      for (const { name, lengths, barred } of layouts) {
        const layout = SequenceLayout.fromLengths(lengths)
        const table = Int32Array.from(layout.segments.flatMap((s) => [s.start, s.length, -1]))
        const pairs = visiblePairs(table, tokens, 0)
        const segments = engine.from(table, [lengths.length, 3])
        const [ldq, ldk] = [heads * dim, kvHeads * dim]
        const q = normal(engine, [tokens, ldq], 1, 6)
        const [k, v] = [normal(engine, [tokens, ldk], 1, 7), normal(engine, [tokens, ldk], 1, 8)]
        const dout = normal(engine, [tokens, ldq], 1, 9)
        const [out, lse] = [engine.empty([tokens, ldq]), engine.empty([tokens, heads])]
        const [dq, dk, dv] = [engine.empty(q.shape), engine.empty(k.shape), engine.empty(v.shape)]
        const all = [segments, q, k, v, dout, out, lse, dq, dk, dv].map((t) => engine.keep(t))
        const rest = [lengths.length, tokens, heads, kvHeads, dim, 1 / Math.sqrt(dim), 0, 0, NONE] as const
        const bytes = 4 * tokens * (2 * ldq + 2 * ldk)
        const label = `${heads}/${kvHeads} heads of ${dim}, ${name}`
        yield {
          group: "attention forward",
          name: label,
          series: "attention",
          flops: 4 * heads * dim * pairs,
          bytes,
          enqueue: () =>
            kernels.attention(
              out.handle,
              lse.handle,
              q.handle,
              ldq,
              k.handle,
              ldk,
              v.handle,
              ldk,
              segments.handle,
              ...rest,
            ),
          ...(barred ? { bar: { must: 0.5, aim: 0.64 } } : {}),
        }
        yield {
          group: "attention backward",
          name: label,
          series: "attention",
          flops: 10 * heads * dim * pairs,
          bytes: 2 * bytes,
          enqueue: () =>
            kernels.attentionBackward(
              dq.handle,
              dk.handle,
              dv.handle,
              NONE,
              dout.handle,
              out.handle,
              lse.handle,
              q.handle,
              ldq,
              k.handle,
              ldk,
              v.handle,
              ldk,
              segments.handle,
              ...rest,
            ),
          ...(barred ? { bar: { must: 0.45, aim: 0.57 } } : {}),
        }
        for (const t of all) t.dispose()
      }
  }

/** The fused output layer and loss, gradient of the hidden states in the same pass. */
export const losses = (shapes: readonly ShapeId[], formats: readonly string[], rows = 512): CaseMaker =>
  function* (engine) {
    const { kernels } = engine.backend
    for (const id of shapes)
      for (const format of formats) {
        const vocab = SHAPES[id].config["vocab_size"] as number
        const hidden = SHAPES[id].config["hidden_size"] as number
        const weights = streamOfWeights(engine, format, vocab, hidden, 1)
        // Logits of unit size: wide ones would make exponentials that are not normal numbers.
        const h = normal(engine, [rows, hidden], 1, 2)
        const targets = engine.from(Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocab))
        const coef = engine.from(new Float32Array(rows).fill(1 / rows))
        const [nll, dh] = [engine.empty([rows]), engine.empty([rows, hidden])]
        const all = [h, targets, coef, nll, dh].map((t) => engine.keep(t))
        yield {
          group: "linear + loss with gradient",
          name: `${SHAPES[id].name} ${vocab}x${hidden} ${format}, ${rows} rows`,
          series: "loss",
          flops: 4 * rows * vocab * hidden,
          bytes: weightBytes(weights.code, vocab * hidden) + 8 * rows * hidden,
          enqueue: () =>
            kernels.linearCrossEntropy(
              nll.handle,
              dh.handle,
              NONE,
              h.handle,
              weights.views[0]!,
              weights.code,
              targets.handle,
              coef.handle,
              rows,
              vocab,
              hidden,
              0,
              1,
            ),
          ...(id === "smollm2-135m" ? { bar: { must: 0.75, aim: 0.88 } } : {}),
        }
        for (const t of all) t.dispose()
        weights.free()
      }
  }

/** What moves bytes and computes little. Sizes of SmolLM2 at 2,048 tokens, and an optimizer step of 20 million parameters. */
export const streaming: CaseMaker = function* (engine) {
  const { kernels } = engine.backend
  const [tokens, hidden, ff, heads, dim] = [2048, 576, 1536, 9, 64]
  const make = (...shape: number[]) => engine.keep(normal(engine, shape, 1, 3))
  const one = (name: string, bytes: number, enqueue: () => void): KernelCase => {
    return { group: "memory-bound kernels", name, series: "memory", flops: 0, bytes, enqueue }
  }
  {
    const [x, y, dx, dy, w, dw, rstd] = [
      make(tokens, hidden),
      make(tokens, hidden),
      make(tokens, hidden),
      make(tokens, hidden),
      make(hidden),
      make(hidden),
      make(tokens),
    ]
    const n = tokens * hidden
    yield one(`RMSNorm ${tokens}x${hidden}`, 8 * n, () =>
      kernels.rmsNorm(y.handle, rstd.handle, x.handle, w.handle, tokens, hidden, 1e-5, 0),
    )
    yield one(`RMSNorm backward ${tokens}x${hidden}`, 12 * n, () =>
      kernels.rmsNormBackward(dx.handle, dw.handle, dy.handle, x.handle, w.handle, rstd.handle, tokens, hidden, 0, 0),
    )
    yield one(`addition ${tokens}x${hidden}`, 12 * n, () => kernels.add(y.handle, x.handle, dx.handle, n))
    for (const t of [x, y, dx, dy, w, dw, rstd]) t.dispose()
  }
  {
    const [gate, up, h, dg, du] = Array.from({ length: 5 }, () => make(tokens, ff)) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ]
    const n = tokens * ff
    yield one(`SwiGLU ${tokens}x${ff}`, 12 * n, () => kernels.gatedActivation(h.handle, gate.handle, up.handle, 0, n))
    yield one(`SwiGLU backward ${tokens}x${ff}`, 20 * n, () =>
      kernels.gatedActivationBackward(dg.handle, du.handle, h.handle, gate.handle, up.handle, 0, n),
    )
    for (const t of [gate, up, h, dg, du]) t.dispose()
  }
  {
    const x = make(tokens, heads * dim)
    const [cos, sin] = [make(tokens, dim / 2), make(tokens, dim / 2)]
    const angle = Float32Array.from({ length: (tokens * dim) / 2 }, (_, i) => i * 0.01)
    cos.write(angle.map(Math.cos))
    sin.write(angle.map(Math.sin))
    const positions = engine.keep(engine.from(Int32Array.from({ length: tokens }, (_, i) => i)))
    yield one(`RoPE ${tokens}x${heads}x${dim}`, 8 * x.size, () =>
      kernels.rope(x.handle, heads * dim, cos.handle, sin.handle, positions.handle, tokens, heads, dim, dim, 0),
    )
    for (const t of [x, cos, sin, positions]) t.dispose()
  }
  {
    const n = 20_000_000
    const [p, g] = [make(n), make(n)]
    const [m, v] = [engine.keep(engine.zeros([n])), engine.keep(engine.zeros([n]))]
    yield one(`AdamW ${n / 1e6}M`, 28 * n, () =>
      kernels.adamw(p.handle, g.handle, m.handle, v.handle, n, 1e-5, 0.9, 0.999, 1e-8, 0, 10, 1),
    )
    m.dispose()
    v.dispose()
    const blocks = Math.ceil(n / 256)
    const [m8, v8] = [engine.keep(engine.zeros([n], "u8")), engine.keep(engine.zeros([n], "u8"))]
    const [mAbs, vAbs] = [engine.keep(engine.zeros([blocks])), engine.keep(engine.zeros([blocks]))]
    yield one(`AdamW, 8-bit states, ${n / 1e6}M`, 16 * n, () =>
      kernels.adamw8bit(
        p.handle,
        g.handle,
        m8.handle,
        v8.handle,
        mAbs.handle,
        vAbs.handle,
        n,
        1e-5,
        0.9,
        0.999,
        1e-8,
        0,
        10,
        1,
      ),
    )
    for (const t of [p, g, m8, v8, mAbs, vAbs]) t.dispose()
  }
}
