import type { Engine } from "../engine.ts"
import { embedding } from "../ops/rows.ts"
import { linear, linearGroup, type LowRank } from "../ops/linear.ts"
import { rmsNorm } from "../ops/norm.ts"
import { rope } from "../ops/attention.ts"
import { ropeTables, type RopeConfig } from "../rope-tables.ts"
import type { Tensor } from "../tensor.ts"
import type { ForwardContext } from "./context.ts"

/** A named weight that several modules may share (tied embeddings); training replaces its tensor by a trainable f32 copy. */
export interface WeightRef {
  /** Hugging Face name, such as "model.layers.0.self_attn.q_proj.weight". */
  readonly name: string
  readonly shape: readonly number[]
  tensor: Tensor
}

/** What an adapter does to a linear layer. A LoRA is one; a plugin may bring others. */
export interface LinearAdapter {
  readonly kind: string
  /** The layer's output for x [tokens, in]: [tokens, out]. */
  forward(ctx: ForwardContext, layer: Linear, x: Tensor): Tensor
  /** The adapter as a low-rank product, where that is all it does in this pass; lets layers that share an input be computed in one call. */
  lowRank?(ctx: ForwardContext): LowRank | undefined
  /** Trainable tensors by their suffix in a PEFT file, such as "lora_A.weight". */
  readonly tensors: Readonly<Record<string, Tensor>>
}

/** y = x · Wᵀ + bias, with an adapter where one is attached. */
export class Linear {
  /** Module path, such as "model.layers.0.self_attn.q_proj". */
  readonly name: string
  readonly inner: number
  readonly out: number
  readonly weight: WeightRef
  readonly bias: WeightRef | undefined
  adapter: LinearAdapter | undefined
  /** Stands in the adapter's place in passes with adapters off: the adapter as a run began with it. None: the layer by itself. */
  reference: LinearAdapter | undefined

  constructor(name: string, inner: number, out: number, weight: WeightRef, bias?: WeightRef) {
    this.name = name
    this.inner = inner
    this.out = out
    this.weight = weight
    this.bias = bias
  }

  /** x [tokens, in] to [tokens, out]. */
  forward(ctx: ForwardContext, x: Tensor): Tensor {
    const adapter = this.adapterIn(ctx)
    return adapter === undefined ? linear(x, this.weight.tensor, this.bias?.tensor) : adapter.forward(ctx, this, x)
  }

  /** The adapter that acts in a pass. */
  adapterIn({ adapters }: Pick<ForwardContext, "adapters">): LinearAdapter | undefined {
    return adapters ? this.adapter : this.reference
  }
}

/** `forward` of up to three layers on the same x [tokens, in]: in one kernel call where the context allows it and all adapters are low-rank products. */
export const forwardTogether = (ctx: ForwardContext, x: Tensor, layers: readonly Linear[]): Tensor[] => {
  if (ctx.grouped !== true || ctx.engine.tape !== undefined) return layers.map((layer) => layer.forward(ctx, x))
  const group = layers.map((layer) => {
    const adapter = layer.adapterIn(ctx)
    return {
      weight: layer.weight.tensor,
      bias: layer.bias?.tensor,
      plain: adapter === undefined,
      low: adapter?.lowRank?.(ctx),
    }
  })
  return group.every((l) => l.plain || l.low !== undefined)
    ? linearGroup(x, group)
    : layers.map((layer) => layer.forward(ctx, x))
}

/** Rows of a table picked by token id. */
export class Embedding {
  readonly name: string
  readonly weight: WeightRef
  /** Factor of the rows; 1 for most families. */
  readonly scale: number

  constructor(name: string, weight: WeightRef, scale = 1) {
    this.name = name
    this.weight = weight
    this.scale = scale
  }

  /** ids i32 [tokens] to [tokens, hidden]. */
  forward(ids: Tensor): Tensor {
    return embedding(this.weight.tensor, ids, this.scale)
  }
}

/** RMS normalisation over the last dimension. */
export class RmsNorm {
  readonly name: string
  readonly weight: WeightRef
  readonly eps: number
  /** Added to the weight: 1 for families that store w - 1. */
  readonly offset: number

  constructor(name: string, weight: WeightRef, eps: number, offset = 0) {
    this.name = name
    this.weight = weight
    this.eps = eps
    this.offset = offset
  }

  /** x [rows, size] to the same shape. */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight.tensor, this.eps, this.offset)
  }
}

interface RotaryTables {
  readonly cos: Tensor
  readonly sin: Tensor
  readonly positions: number
  readonly key: string
}

const disposeTables = (tables: RotaryTables | undefined): void => {
  tables?.cos.dispose()
  tables?.sin.dispose()
}

/** Rotary positions; the tables grow with the longest text seen, and are made anew where the scaling rule depends on the length. */
export class Rotary implements Disposable {
  readonly #engine: Engine
  readonly config: RopeConfig
  /** Tables whose frequencies do not depend on the length of the text. */
  #fixed: RotaryTables | undefined
  /** Shorter ones of these: a recorded pass may still read them. Together they are no larger than the last. */
  readonly #outgrown: RotaryTables[] = []
  #stretched: RotaryTables | undefined

  constructor(engine: Engine, config: RopeConfig) {
    this.#engine = engine
    this.config = config
  }

  #make(length: number, key: string): RotaryTables {
    const positions = Math.max(64, 2 ** Math.ceil(Math.log2(length)))
    const { cos, sin } = ropeTables(this.config, positions, length)
    const shape = [positions, this.config.rotary / 2]
    return {
      cos: this.#engine.keep(this.#engine.from(cos, shape)),
      sin: this.#engine.keep(this.#engine.from(sin, shape)),
      positions,
      key,
    }
  }

  #tablesFor(length: number): RotaryTables {
    const { scaling, maxPositions } = this.config
    // Only these rules change their frequencies with the length of the text.
    const key =
      scaling?.type === "dynamic" && length > maxPositions
        ? `dynamic:${length}`
        : scaling?.type === "longrope" && length > scaling.originalMaxPositions
          ? "long"
          : "fixed"
    // A recorded pass is repeated for other lengths, so its tables must be there and must be those of every length.
    if (this.#engine.capturing && (key !== "fixed" || this.#fixed === undefined || this.#fixed.positions < length))
      this.#engine.refuseCapture()
    if (key === "fixed") {
      if (this.#fixed !== undefined && this.#fixed.positions >= length) return this.#fixed
      if (this.#fixed !== undefined) this.#outgrown.push(this.#fixed)
      return (this.#fixed = this.#make(length, key))
    }
    if (this.#stretched?.key === key && this.#stretched.positions >= length) return this.#stretched
    disposeTables(this.#stretched)
    return (this.#stretched = this.#make(length, key))
  }

  /** Rotates x [tokens, heads · headDim] in place; use the result instead of x. */
  forward(ctx: ForwardContext, x: Tensor, heads: number, headDim: number): Tensor {
    const { cos, sin } = this.#tablesFor(ctx.maxLength)
    return rope(x, cos, sin, ctx.positions, heads, headDim, this.config.rotary)
  }

  [Symbol.dispose](): void {
    for (const tables of [this.#fixed, this.#stretched, ...this.#outgrown.splice(0)]) disposeTables(tables)
    this.#fixed = undefined
    this.#stretched = undefined
  }
}
