import { SlothError } from "@sloth/core"
import type { Engine } from "./engine.ts"
import type { Op } from "./op.ts"
import type { Spilled } from "./spill.ts"
import { Storage, Tensor, type DType } from "./tensor.ts"

/** Where the gradient of a tensor gathers. Leaves keep theirs; others lose it when their node has run. */
export class GradSlot {
  readonly leaf: Tensor | undefined
  grad: Tensor | undefined

  constructor(leaf?: Tensor) {
    this.leaf = leaf
  }

  /** Drops the gradient. */
  clear(): void {
    this.grad?.dispose()
    this.grad = undefined
  }
}

/** A value kept for the backward pass: its storage, or the node that can make it again. */
type Saved =
  | { readonly kind: "stored"; readonly storage: Storage; readonly shape: readonly number[]; readonly dtype: DType }
  | { readonly kind: "again"; readonly node: TapeNode; readonly output: number }
  | { readonly kind: "spilled"; readonly spilled: Spilled }
  | { readonly kind: "none" }

/** One recorded op. */
export class TapeNode {
  readonly op: Op<unknown>
  readonly params: unknown
  readonly inputs: readonly (GradSlot | undefined)[]
  readonly outputs: readonly GradSlot[]
  readonly saved: Saved[] = []
  /** Outputs made again for consumers whose op saved them lazily. */
  remade: Tensor[] | undefined

  constructor(
    op: Op<unknown>,
    params: unknown,
    inputs: readonly (GradSlot | undefined)[],
    outputs: readonly GradSlot[],
  ) {
    this.op = op
    this.params = params
    this.inputs = inputs
    this.outputs = outputs
  }
}

/** Hands gradients of a node's inputs to their slots. */
export class GradSink {
  readonly #engine: Engine
  readonly #inputs: readonly (GradSlot | undefined)[]

  constructor(engine: Engine, inputs: readonly (GradSlot | undefined)[]) {
    this.#engine = engine
    this.#inputs = inputs
  }

  /** True when input `i` wants a gradient; ops compute nothing else. */
  needs(i: number): boolean {
    return this.#inputs[i] !== undefined
  }

  /** Shape of input `i` when it is a leaf. */
  shapeOf(i: number): readonly number[] | undefined {
    return this.#inputs[i]?.leaf?.shape
  }

  /** The buffer a kernel writes (`accumulate` 0) or adds (`accumulate` 1) the gradient of input `i` to. */
  target(i: number, shape: readonly number[]): { tensor: Tensor; accumulate: 0 | 1 } {
    const slot = this.#slot(i)
    if (slot.grad === undefined) {
      slot.grad = this.#engine.unscoped(shape)
      return { tensor: slot.grad, accumulate: 0 }
    }
    if (slot.grad.storage.refs > 1) {
      // Another slot still reads this buffer (a residual connection passes one gradient to two inputs): add to a copy.
      const copy = this.#engine.unscoped(slot.grad.shape)
      this.#engine.backend.kernels.copy(copy.handle, slot.grad.handle, copy.size * 4)
      slot.clear()
      slot.grad = copy
    }
    return { tensor: slot.grad, accumulate: 1 }
  }

  /** Passes a finished gradient on; the storage is shared, not copied. */
  give(i: number, gradient: Tensor): void {
    const slot = this.#slot(i)
    if (slot.grad === undefined && slot.leaf === undefined) {
      slot.grad = new Tensor(this.#engine, gradient.storage.retain(), gradient.shape, gradient.dtype)
      return
    }
    const { tensor, accumulate } = this.target(i, gradient.shape)
    this.#engine.backend.kernels.scale(tensor.handle, gradient.handle, 1, tensor.size, accumulate)
  }

  #slot(i: number): GradSlot {
    const slot = this.#inputs[i]
    if (slot === undefined)
      throw new SlothError("SLOTH_TAPE_UNWANTED", {
        what: `A gradient was offered for input ${i}, which needs none.`,
        fields: { input: i },
      })
    return slot
  }
}

/** The ops of one forward pass; `backward` runs their rules in reverse and frees each saved value as soon as its rule has run. */
export class Tape implements Disposable {
  readonly engine: Engine
  readonly #nodes: TapeNode[] = []
  readonly #producers = new WeakMap<Storage, { node: TapeNode; output: number }>()
  readonly #views = new Map<TapeNode, Tensor[]>()
  readonly #owned: Tensor[] = []

  constructor(engine: Engine) {
    this.engine = engine
  }

  /** Number of recorded ops that have not run backward. */
  get length(): number {
    return this.#nodes.length
  }

  /** Takes tensors out of their scopes until the tape is empty: what the body of a checkpointed block reads when it runs again. */
  own(...tensors: readonly Tensor[]): void {
    for (const t of tensors) this.#owned.push(this.engine.keep(t))
  }

  push(node: TapeNode, outputs: readonly Tensor[]): void {
    this.#nodes.push(node)
    if (node.op.recompute === true) outputs.forEach((t, output) => this.#producers.set(t.storage, { node, output }))
  }

  /** Keeps a value for `node`; under the policies that recompute, outputs of cheap ops are remembered by how to make them. */
  save(node: TapeNode, tensor: Tensor | undefined): void {
    if (tensor === undefined) {
      node.saved.push({ kind: "none" })
      return
    }
    if (node.op.spills === true && this.engine.policy === "spill") {
      node.saved.push({ kind: "spilled", spilled: this.engine.spill.put(tensor) })
      return
    }
    const producer = this.engine.policy === "keep" ? undefined : this.#producers.get(tensor.storage)
    if (producer !== undefined && producer.node !== node) {
      node.saved.push({ kind: "again", ...producer })
      return
    }
    tensor.storage.retain().saves++
    node.saved.push({ kind: "stored", storage: tensor.storage, shape: tensor.shape, dtype: tensor.dtype })
  }

  #restore(owner: TapeNode, saved: Saved): Tensor | undefined {
    if (saved.kind === "none") return undefined
    if (saved.kind === "stored") {
      const view = new Tensor(this.engine, saved.storage.retain(), saved.shape, saved.dtype)
      this.#viewsOf(owner).push(view)
      return view
    }
    if (saved.kind === "spilled") {
      const back = this.engine.unscoped(saved.spilled.shape)
      this.#viewsOf(owner).push(back)
      this.engine.spill.take(saved.spilled, back)
      return back
    }
    const { node, output } = saved
    if (node.remade === undefined) {
      const inputs = node.saved.slice(0, node.inputs.length).map((s) => this.#restore(node, s))
      const outputs = this.engine.noGrad(() => node.op.forward(this.engine, node.params, inputs).outputs)
      node.remade = outputs.map((t) => this.engine.keep(t))
    }
    const made = node.remade[output]
    if (made === undefined)
      throw new SlothError("SLOTH_TAPE_REMAKE", {
        what: `${node.op.name} did not make its output ${output} again.`,
        fields: { op: node.op.name },
      })
    return made
  }

  #viewsOf(node: TapeNode): Tensor[] {
    let list = this.#views.get(node)
    if (list === undefined) this.#views.set(node, (list = []))
    return list
  }

  #release(node: TapeNode): void {
    for (const s of node.saved)
      if (s.kind === "stored") {
        s.storage.saves--
        s.storage.release()
      } else if (s.kind === "spilled") this.engine.spill.free(s.spilled)
    node.saved.length = 0
    for (const t of node.remade ?? []) t.dispose()
    node.remade = undefined
    for (const t of this.#views.get(node) ?? []) t.dispose()
    this.#views.delete(node)
    for (const slot of node.outputs) slot.clear()
  }

  /**
   * Runs the rules. `roots` are outputs with the gradient to start from; a loss op (one that made its gradient in the forward pass) takes `upstream`
   * instead, a plain factor. The tape is empty afterwards.
   */
  backward(roots: readonly { tensor: Tensor; gradient?: Tensor; upstream?: number }[]): void {
    const upstream = new Map<GradSlot, number>()
    for (const { tensor, gradient, upstream: factor } of roots) {
      if (tensor.slot === undefined)
        throw new SlothError("SLOTH_TAPE_NO_GRADIENT", {
          what: "The loss does not depend on any trainable parameter.",
          next: "Check that an adapter is attached or that weights are trainable.",
        })
      if (gradient === undefined) upstream.set(tensor.slot, factor ?? 1)
      else tensor.slot.grad = new Tensor(this.engine, gradient.storage.retain(), gradient.shape, gradient.dtype)
    }
    this.engine.noGrad(() => {
      for (let node = this.#nodes.pop(); node !== undefined; node = this.#nodes.pop()) {
        const run = node
        const factor = run.outputs.map((s) => upstream.get(s)).find((f) => f !== undefined)
        if (factor !== undefined || run.outputs.some((s) => s.grad !== undefined))
          this.engine.scope(() => {
            run.op.backward({
              engine: this.engine,
              params: run.params,
              saved: (i) => {
                const s = run.saved[i]
                return s === undefined ? undefined : this.#restore(run, s)
              },
              gradients: run.outputs.map((s) => s.grad),
              upstream: factor ?? 1,
              sink: new GradSink(this.engine, run.inputs),
            })
          })
        this.#release(run)
      }
    })
    this.#disown()
  }

  #disown(): void {
    for (const t of this.#owned.splice(0)) t.dispose()
  }

  /** Frees everything saved without running backward. */
  dispose(): void {
    for (let node = this.#nodes.pop(); node !== undefined; node = this.#nodes.pop()) this.#release(node)
    this.#disown()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
