import { NONE } from "@sloth/core"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"
import { shapeMismatch, type Tensor } from "../tensor.ts"
import { weightFormat } from "../weight-format.ts"
import type { HeadShape } from "./loss.ts"

/** Bytes of logits of one model that are there at a time. */
const LOGITS_BYTES = 32 << 20

/** How two output layers are compared. */
export interface DivergenceShape {
  readonly student: HeadShape
  readonly teacher: HeadShape
  /** 0: KL(teacher || student); 1: KL(student || teacher); between: the generalised Jensen-Shannon divergence. */
  readonly beta: number
}

// Inputs: h [rows, hidden], W [vocab, hidden], the teacher's h and W, coef f32 [rows]. The gradients are made in the forward pass.
const divergenceOp: Op<DivergenceShape> = {
  name: "linearDivergence",
  saves: () => [false, false, false, false, false],
  forward: (engine, p, [h, w, ht, wt, coef]) => {
    const { kernels } = engine.backend
    const [rows, hidden] = h!.shape as [number, number]
    const teacherHidden = ht!.shape[1]!
    // Tables of models with one tokenizer may be padded to different lengths; ids behind the shorter one stand for nothing.
    const vocab = Math.min(w!.shape[0]!, wt!.shape[0]!)
    const values = engine.zeros([rows])
    const recording = engine.tape !== undefined
    const wantsH = recording && h!.requiresGrad
    const wantsW = recording && w!.requiresGrad
    const dh = wantsH ? engine.empty(h!.shape) : undefined
    const dw = wantsW ? engine.zeros(w!.shape) : undefined
    const most = Math.max(1, Math.floor(LOGITS_BYTES / 4 / vocab))
    const chunk = Math.ceil(rows / Math.ceil(rows / most))
    const format = { student: weightFormat(w!.dtype).code, teacher: weightFormat(wt!.dtype).code }
    if (dh !== undefined && chunk < rows) kernels.fill(dh.handle, 0, dh.size)
    for (let first = 0; first < rows; first += chunk) {
      const n = Math.min(chunk, rows - first)
      engine.scope(() => {
        const index = n === rows ? undefined : engine.from(Int32Array.from({ length: n }, (_, i) => first + i))
        const part = (x: Tensor, cols: number): Tensor => {
          if (index === undefined) return x
          const out = engine.empty([n, cols])
          kernels.gatherRows(out.handle, x.handle, index.handle, n, cols)
          return out
        }
        const own = part(h!, hidden)
        const [zs, zt] = [engine.empty([n, vocab]), engine.empty([n, vocab])]
        const { student, teacher, beta } = p
        kernels.logits(
          zs.handle,
          own.handle,
          w!.handle,
          format.student,
          n,
          vocab,
          hidden,
          student.softcap,
          student.logitScale,
        )
        kernels.logits(
          zt.handle,
          part(ht!, teacherHidden).handle,
          wt!.handle,
          format.teacher,
          n,
          vocab,
          teacherHidden,
          teacher.softcap,
          teacher.logitScale,
        )
        const out = index === undefined ? values : engine.empty([n])
        const dz = wantsH || wantsW ? zs.handle : NONE
        kernels.divergence(
          out.handle,
          dz,
          zs.handle,
          zt.handle,
          part(coef!, 1).handle,
          n,
          vocab,
          beta,
          student.softcap,
          student.logitScale,
        )
        if (index !== undefined) kernels.scatterRows(values.handle, out.handle, index.handle, n, 1, rows, 1)
        if (dh !== undefined) {
          const d = index === undefined ? dh : engine.empty([n, hidden])
          kernels.linearBackwardInput(d.handle, dz, w!.handle, format.student, n, vocab, hidden, NONE, NONE, 0, 0)
          if (index !== undefined) kernels.scatterRows(dh.handle, d.handle, index.handle, n, hidden, rows, 1)
        }
        // dW += dzᵀ · h
        if (dw !== undefined) kernels.matmul(dw.handle, dz, own.handle, vocab, hidden, n, 1, 0, 1, 1)
      })
    }
    return { outputs: [values], extra: [dh, dw] }
  },
  backward: ({ engine, saved, upstream, sink }) => {
    for (const i of [0, 1]) {
      if (!sink.needs(i)) continue
      const made = saved(5 + i)!
      if (upstream !== 1) engine.backend.kernels.scale(made.handle, made.handle, upstream, made.size, 0)
      sink.give(i, made)
    }
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** Final hidden states f32 [rows, hidden] with the output layer f32 or any weight format [vocab, hidden] that reads them. */
export interface OutputRows {
  readonly h: Tensor
  readonly w: Tensor
}

/**
 * Divergence of the student's distribution from the teacher's in every row, nats, f32 [rows], over the whole vocabulary. It is a root for `tape.backward` whose gradient is that of
 * Σ coef · divergence by the student's h and W, made in the same pass. Logits of both are there for a block of rows at a time. The two may differ in hidden size and format.
 */
export const linearDivergence = (
  student: OutputRows,
  teacher: OutputRows,
  coef: Tensor,
  shape: DivergenceShape,
): Tensor => {
  const [a, b] = [student, teacher]
  const rows = a.h.shape[0]
  if (
    a.h.shape.at(-1) !== a.w.shape[1] ||
    b.h.shape.at(-1) !== b.w.shape[1] ||
    b.h.shape[0] !== rows ||
    coef.size !== rows
  )
    throw shapeMismatch(
      "linearDivergence",
      "h [rows, hidden], W [vocab, hidden] of both, coef [rows]",
      a.h.shape,
      a.w.shape,
      b.h.shape,
      b.w.shape,
      coef.shape,
    )
  return apply(a.h.engine, divergenceOp, shape, [a.h, a.w, b.h, b.w, coef])[0]!
}
