import type { Engine } from "./engine.ts"
import { GradSlot, TapeNode, type GradSink } from "./tape.ts"
import type { Tensor } from "./tensor.ts"

/** What an op's forward pass made: its outputs, and the values its backward rule reads besides the inputs. */
export interface Forward {
  readonly outputs: readonly Tensor[]
  /** Kept for backward, at indices after those of the inputs. */
  readonly extra?: readonly (Tensor | undefined)[]
}

/** What a backward rule gets. */
export interface Backward<P> {
  readonly engine: Engine
  readonly params: P
  /** Value `i` that was saved: inputs first (only those named by `saves`), then `extra`. */
  readonly saved: (i: number) => Tensor | undefined
  /** Gradients of the outputs; undefined where none arrived. */
  readonly gradients: readonly (Tensor | undefined)[]
  /** Factor of a loss op that is a root. */
  readonly upstream: number
  readonly sink: GradSink
}

/** How far a result may be from the exact one: `relative` to the sum of the absolute terms of a reduction, growing with the root of its length. */
export interface Tolerance {
  readonly relative: number
  readonly absolute: number
}

/** One operation: forward and backward side by side. */
export interface Op<P> {
  readonly name: string
  /** Which inputs the backward rule reads; `(params)` because it may depend on what is trained. */
  saves(params: P, inputs: readonly (Tensor | undefined)[]): readonly boolean[]
  forward(engine: Engine, params: P, inputs: readonly (Tensor | undefined)[]): Forward
  /** Computes only the gradients that `sink.needs`. */
  backward(b: Backward<P>): void
  /** True for cheap ops whose outputs are made again in the backward pass instead of being kept, when the policy says so; such an op saves all its inputs. */
  readonly recompute?: boolean
  /** True for an op whose saved values go to the scratch file under the policy `spill`: it is run backward long after. */
  readonly spills?: boolean
  readonly tolerance: { readonly f32: Tolerance }
}

/** The rounding error of one f32 operation with room for a different order of summation. */
export const F32_TOLERANCE: Tolerance = { relative: 2 ** -22, absolute: 1e-7 }

/** Runs an op and records it when a tape is active and an input needs a gradient. */
export const apply = <P>(
  engine: Engine,
  op: Op<P>,
  params: P,
  inputs: readonly (Tensor | undefined)[],
): readonly Tensor[] => {
  const { outputs, extra = [] } = op.forward(engine, params, inputs)
  const tape = engine.tape
  if (tape !== undefined && inputs.some((t) => t?.slot !== undefined)) {
    for (const t of outputs) t.slot = new GradSlot()
    const node = new TapeNode(
      op as Op<unknown>,
      params,
      inputs.map((t) => t?.slot),
      outputs.map((t) => t.slot as GradSlot),
    )
    const saves = op.saves(params, inputs)
    // Pushed first: what was saved belongs to the tape also when the next value finds no room.
    tape.push(node, outputs)
    inputs.forEach((t, i) => tape.save(node, saves[i] === true ? t : undefined))
    for (const t of extra) tape.save(node, t)
  }
  return outputs
}
