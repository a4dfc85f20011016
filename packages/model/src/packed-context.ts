import {
  attention,
  checkpoint,
  takeRows,
  withRows,
  type ActivationPolicy,
  type Engine,
  type ForwardContext,
  type KnownSpan,
  type SequenceLayout,
  type Tensor,
} from "@sloth/tensor"

/** Options of {@link packedContext}. */
export interface PackedOptions {
  /** What is kept for the backward pass; only matters while recording. */
  readonly policy?: ActivationPolicy
  /** Random address of dropout; absent switches dropout off. */
  readonly dropout?: { readonly seed: number; readonly step: number }
  /** False runs the base model. */
  readonly adapters?: boolean
  /** Most rows that what comes after attention runs over at once where nothing in it is kept; 1536 when absent. Sums over rows of gradients are made of such pieces. */
  readonly rowsAtOnce?: number
  /** Rows whose final hidden states will be read, ascending and different; {@link CausalLM.hidden} then returns these rows only. */
  readonly read?: Int32Array
  /**
   * Rows that an earlier pass with the same weights, adapters and positions has computed, in order: linear layers take them from there. Values and gradients are the same bits as
   * without. Not used where blocks run twice, nor while dropout acts.
   */
  readonly known?: readonly KnownSpan[]
}

/** The context of a pass over packed texts: training, scoring, evaluation. Made inside the scope of the pass. */
export const packedContext = (engine: Engine, layout: SequenceLayout, options: PackedOptions = {}): ForwardContext => {
  const segments = engine.from(layout.table, [layout.segments.length, 3])
  const policy = options.policy ?? "keep"
  const rows = options.read
  const read =
    rows === undefined || rows.length >= layout.tokens
      ? undefined
      : { rows: engine.from(rows), positions: engine.from(rows.map((r) => layout.positions[r]!)) }
  const positions = engine.from(layout.positions)
  // Blocks that run again in the backward pass read these, and that pass may come after the scope of this one.
  if (policy === "checkpoint" || policy === "spill")
    engine.tape?.own(segments, positions, ...(read === undefined ? [] : [read.rows, read.positions]))
  const { dropout, known = [] } = options
  const memo = policy === "checkpoint" || policy === "spill" ? undefined : takeRows(layout.tokens, known)
  const context: ForwardContext = {
    engine,
    positions,
    maxLength: layout.maxLength,
    ...(read === undefined ? {} : { read }),
    attend: (_layer, q, k, v, shape, sinks) => attention(q, k, v, segments, shape, sinks),
    block: (_layer, x, body, anchor, tail) => {
      engine.policy = policy
      const rowWise =
        tail === undefined
          ? undefined
          : (y: Tensor, first: number) =>
              tail(
                first === 0 || dropout === undefined ? context : { ...context, dropout: { ...dropout, row: first } },
                y,
              )
      // A block below the lowest trainable layer records nothing, so there is nothing to keep.
      const records = engine.tape !== undefined && (x.requiresGrad || anchor !== undefined)
      const run = (): Tensor =>
        records && policy !== "checkpoint" && policy !== "spill"
          ? engine.scope(() => (rowWise === undefined ? body(x) : rowWise(body(x), 0)))
          : checkpoint(engine, x, body, { anchor, tail: rowWise, atOnce: options.rowsAtOnce })
      return memo === undefined ? run() : withRows(engine, memo, run)
    },
    dropout,
    adapters: options.adapters ?? true,
  }
  return context
}
