/**
 * Memory that kernels of the native backend ask for beside their arguments and keep for the next call (`pool_shared`): the slots that are more than a megabyte. Sizes are those of
 * native/hot/loss.h, loss_stream.h and attention.h.
 */
const MB = 2 ** 20
const LOGITS = { rows: 512, bytes: 48 * MB }
const STREAM = { rows: 512, vocab: 384, parts: 16, bytes: 48 * MB }
/** Rows up to which products and losses have kernels of their own. */
const SKINNY = 32

type Slot = "logits" | "stream" | "stream rows" | "delta"
type Needs = Readonly<Partial<Record<Slot, number>>>

const logits = (rows: number, vocab: number): Needs => {
  const most = Math.max(1, Math.min(LOGITS.rows, Math.floor(LOGITS.bytes / 4 / Math.max(1, vocab))))
  const block = Math.ceil(rows / Math.max(1, Math.ceil(rows / most)))
  return { logits: block * vocab * 4 }
}

const stream = (rows: number, vocab: number, hidden: number, gradient: boolean): Needs => {
  const block = Math.ceil(rows / Math.ceil(rows / STREAM.rows))
  const parts = Math.max(
    1,
    Math.min(STREAM.parts, Math.ceil(vocab / STREAM.vocab), Math.floor(STREAM.bytes / 4 / Math.max(1, block * hidden))),
  )
  return { stream: gradient ? parts * block * hidden * 4 : 0, "stream rows": parts * block * 20 + block * 8 }
}

const NEEDS: Readonly<Record<string, (...args: number[]) => Needs>> = {
  linearCrossEntropy: (_nll, dh, dw, _h, _w, _f, _t, _c, rows, vocab, hidden) =>
    dw !== 0 || rows! <= SKINNY ? logits(rows!, vocab!) : stream(rows!, vocab!, hidden!, dh !== 0),
  linearLogprobs: (_logp, _lse, _e, dh, _h, _w, _f, _t, rows, vocab, hidden) =>
    rows! <= SKINNY ? logits(rows!, vocab!) : stream(rows!, vocab!, hidden!, dh !== 0),
  linearLogprobsBackward: (_dh, dw, _d, _l, _de, _e, _h, _w, _f, _t, rows, vocab, hidden) =>
    dw !== 0 || rows! <= SKINNY ? logits(rows!, vocab!) : stream(rows!, vocab!, hidden!, true),
  attentionBackward: (...args) => ({ delta: args[15]! * args[16]! * 4 }),
}

/** Bytes of scratch that a sequence of kernel calls leaves behind. */
export class ScratchModel {
  #slots = new Map<Slot, number>()

  call(kernel: string, args: readonly number[]): void {
    const needs = NEEDS[kernel]?.(...args)
    for (const [slot, bytes] of Object.entries(needs ?? {}) as [Slot, number][])
      this.#slots.set(slot, Math.max(bytes, this.#slots.get(slot) ?? 0))
  }

  get bytes(): number {
    let sum = 0
    for (const bytes of this.#slots.values()) sum += bytes
    return sum
  }

  save(): () => void {
    const was = new Map(this.#slots)
    return () => void (this.#slots = new Map(was))
  }
}
