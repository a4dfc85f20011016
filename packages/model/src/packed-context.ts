import {
  attention,
  checkpoint,
  type ActivationPolicy,
  type Engine,
  type ForwardContext,
  type SequenceLayout,
} from "@sloth/tensor"

/** Options of {@link packedContext}. */
export interface PackedOptions {
  /** What is kept for the backward pass; only matters while recording. */
  readonly policy?: ActivationPolicy
  /** Random address of dropout; absent switches dropout off. */
  readonly dropout?: { readonly seed: number; readonly step: number }
  /** False runs the base model. */
  readonly adapters?: boolean
  /** Rows whose final hidden states will be read, ascending and different; {@link CausalLM.hidden} then returns these rows only. */
  readonly read?: Int32Array
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
  return {
    engine,
    positions: engine.from(layout.positions),
    maxLength: layout.maxLength,
    ...(read === undefined ? {} : { read }),
    attend: (_layer, q, k, v, shape, sinks) => attention(q, k, v, segments, shape, sinks),
    block: (_layer, x, body, anchor) => {
      if (engine.tape === undefined) return engine.scope(() => body(x))
      engine.policy = policy
      // A block below the lowest trainable layer records nothing, so there is nothing to checkpoint.
      const trains = x.requiresGrad || anchor !== undefined
      return policy === "checkpoint" && trains ? checkpoint(engine, x, body, anchor) : engine.scope(() => body(x))
    },
    dropout: options.dropout,
    adapters: options.adapters ?? true,
  }
}
