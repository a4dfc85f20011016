import type { Engine } from "../engine.ts"
import type { AttentionShape } from "../ops/attention.ts"
import type { Tensor } from "../tensor.ts"

/** What a forward pass runs in: the rows' positions, what attention means here (packed texts or a paged cache), and how blocks are kept. */
export interface ForwardContext {
  readonly engine: Engine
  /** Position of each row, i32 [tokens]. */
  readonly positions: Tensor
  /** Largest position plus one, in tokens. */
  readonly maxLength: number
  /**
   * The rows whose final hidden states are read, i32 [n] ascending and different, fewer than all, with their positions; absent when all are read. A family may leave
   * the other rows out of what its last layer does after the keys and values, and return [n, hidden].
   */
  readonly read?: { readonly rows: Tensor; readonly positions: Tensor }
  /** Attention of layer `layer`; q [tokens, heads · headDim], k and v [tokens, kvHeads · headDim], result as q. */
  attend(layer: number, q: Tensor, k: Tensor, v: Tensor, shape: AttentionShape, sinks?: Tensor): Tensor
  /**
   * Runs one transformer block under the activation policy: `tail(body(x))`. `anchor` is a trainable tensor inside it, if any. `tail` is what comes after attention, where row i of
   * the result depends on row i alone (residual, norm, MLP): long texts run through it in pieces. It gets the context to use, which knows where its rows lie.
   */
  block(
    layer: number,
    x: Tensor,
    body: (x: Tensor) => Tensor,
    anchor?: Tensor,
    tail?: (ctx: ForwardContext, y: Tensor) => Tensor,
  ): Tensor
  /** Seed and step of dropout while training, and the number of the pass's first row in the whole (0 when absent); undefined switches dropout off. */
  readonly dropout: { readonly seed: number; readonly step: number; readonly row?: number } | undefined
  /** False runs the base model without its adapters. */
  readonly adapters: boolean
  /** True where no gradient is wanted, as in generation: layers that share an input may be computed in one call. */
  readonly grouped?: boolean
}
