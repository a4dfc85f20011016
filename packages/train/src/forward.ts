import { packedContext, type CausalLM } from "@sloth/model"
import {
  gatherRows,
  linear,
  linearCrossEntropy,
  linearDivergence,
  linearLogprobs,
  recordRows,
  SequenceLayout,
  withRows,
  type ActivationPolicy,
  type KnownRows,
  type KnownSpan,
  type Tape,
  type Tensor,
} from "@sloth/tensor"
import type { MicroBatch } from "./micro-batch.ts"

/** How a pass over a micro-batch runs. */
export interface PassOptions {
  readonly policy?: ActivationPolicy
  /** Random address of dropout; absent switches dropout off. */
  readonly dropout?: { readonly seed: number; readonly step: number }
  /** False runs the base model without its adapters. */
  readonly adapters?: boolean
  /** Temperature of the distribution that log-probs and entropies are of; 1 when absent. */
  readonly temperature?: number
  /** Rows that an earlier pass has computed with these weights; without dropout only. */
  readonly known?: readonly KnownSpan[]
}

/** How hidden states become logits that are divided by a temperature: cap · tanh(scale · x / cap) / T is the same form with both constants divided. */
const tempered = ({ softcap, logitScale }: CausalLM["head"], temperature = 1) => ({
  softcap: softcap / temperature,
  logitScale: logitScale / temperature,
})

/** Hidden states of the scored rows `[scored, hidden]` with their targets i32 `[scored]`; called inside a scope. */
const scoredHidden = (model: CausalLM, batch: MicroBatch, options: PassOptions): { h: Tensor; targets: Tensor } => {
  const { engine } = model
  // What the last layer makes of rows that predict nothing is read by nobody.
  const context = packedContext(engine, batch.layout, { ...options, read: batch.read })
  const hidden = model.hidden(context, engine.from(batch.tokens)) // [read, hidden]
  const targets = engine.from(batch.targets)
  // Rows in order and each once: nothing is left to gather. Children of one prompt share its last row.
  if (batch.at.length === batch.read.length && batch.at.every((row, i) => row === i)) return { h: hidden, targets }
  return { h: gatherRows(hidden, engine.from(batch.at)), targets } // [scored, hidden]
}

/**
 * Enqueues forward and backward passes of a cross-entropy: gradients of Σ coef · nll gather in the trainable tensors, and slot `slot` of `sums` (f64) becomes Σ nll,
 * or Σ coef · nll when `weighted`. Nothing is waited for. coef f32 `[scored]`.
 */
export const crossEntropyPass = (
  model: CausalLM,
  batch: MicroBatch,
  coef: Float32Array,
  options: PassOptions,
  sums: Tensor,
  slot: number,
  weighted: boolean,
): void => {
  const { engine } = model
  const { kernels } = engine.backend
  engine.scope(() => {
    const coefficients = engine.from(coef)
    // The scope leaves hidden states and their gradient to the tape, which frees them when the loss's rule has run.
    const { result: nll, tape } = engine.record(() =>
      engine.scope(() => {
        const { h, targets } = scoredHidden(model, batch, options)
        return linearCrossEntropy(h, model.head.weight.tensor, targets, coefficients, model.head) // [scored]
      }),
    )
    tape.backward([{ tensor: nll }])
    if (weighted) kernels.mul(nll.handle, nll.handle, coefficients.handle, nll.size)
    kernels.sum(sums.handle, slot, nll.handle, nll.size)
  })
}

/** Enqueues a forward pass without gradients and puts Σ nll of the scored rows into slot `slot` of `sums` (f64). */
export const lossPass = (model: CausalLM, batch: MicroBatch, sums: Tensor, slot: number): void => {
  const { engine } = model
  engine.scope(() =>
    engine.noGrad(() => {
      const { h, targets } = scoredHidden(model, batch, {})
      const coef = engine.zeros([targets.size])
      const nll = linearCrossEntropy(h, model.head.weight.tensor, targets, coef, model.head)
      engine.backend.kernels.sum(sums.handle, slot, nll.handle, nll.size)
    }),
  )
}

/** A teacher and how the model is compared with it. */
export interface TeacherPass {
  readonly teacher: CausalLM
  readonly beta: number
  readonly temperature?: number
}

const divergenceOf = (
  model: CausalLM,
  batch: MicroBatch,
  { teacher, beta, temperature }: TeacherPass,
  coef: Tensor,
  options: PassOptions,
): Tensor => {
  const { engine } = model
  const theirs = engine.noGrad(() => engine.scope(() => scoredHidden(teacher, batch, {}).h)) // [scored, teacher's hidden]
  const { h } = scoredHidden(model, batch, options) // [scored, hidden]
  return linearDivergence({ h, w: model.head.weight.tensor }, { h: theirs, w: teacher.head.weight.tensor }, coef, {
    student: tempered(model.head, temperature),
    teacher: tempered(teacher.head, temperature),
    beta,
  }) // [scored]
}

/** As {@link crossEntropyPass} for the divergence from a teacher: slot `slot` of `sums` (f64) becomes Σ coef · divergence. */
export const divergencePass = (
  model: CausalLM,
  batch: MicroBatch,
  pass: TeacherPass,
  coef: Float32Array,
  options: PassOptions,
  sums: Tensor,
  slot: number,
): void => {
  const { engine } = model
  const { kernels } = engine.backend
  engine.scope(() => {
    const coefficients = engine.from(coef)
    const { result: values, tape } = engine.record(() => divergenceOf(model, batch, pass, coefficients, options))
    tape.backward([{ tensor: values }])
    kernels.mul(values.handle, values.handle, coefficients.handle, values.size)
    kernels.sum(sums.handle, slot, values.handle, values.size)
  })
}

/** As {@link lossPass} for the divergence from a teacher. */
export const divergenceLossPass = (
  model: CausalLM,
  batch: MicroBatch,
  pass: TeacherPass,
  sums: Tensor,
  slot: number,
): void => {
  const { engine } = model
  engine.scope(() =>
    engine.noGrad(() => {
      const values = divergenceOf(model, batch, pass, engine.zeros([batch.targets.length]), {})
      engine.backend.kernels.sum(sums.handle, slot, values.handle, values.size)
    }),
  )
}

/** What is wanted of the scored rows of a micro-batch. */
export interface WantedOutputs {
  /** log p of the targets; wanted when absent. */
  readonly logprobs?: boolean
  /** Entropies of the distributions. */
  readonly entropy?: boolean
  /** What the model's score head makes of the hidden states. */
  readonly values?: boolean
}

/** What was wanted, f32 `[scored]` each. */
export interface ScoredOutputs<T> {
  readonly logprobs: T | undefined
  readonly entropy: T | undefined
  readonly values: T | undefined
}

const OUTPUTS = ["logprobs", "entropy", "values"] as const

const scoredOutputs = (
  model: CausalLM,
  batch: MicroBatch,
  { logprobs = true, entropy = false, values = false }: WantedOutputs,
  options: PassOptions,
): ScoredOutputs<Tensor> => {
  const { h, targets } = scoredHidden(model, batch, options)
  const made = logprobs
    ? linearLogprobs(h, model.head.weight.tensor, targets, { ...tempered(model.head, options.temperature), entropy })
    : { logprobs: undefined, entropy: undefined }
  return { ...made, values: values ? linear(h, model.scoreHead.tensor) : undefined } // [scored], [scored], [scored, 1]
}

const kept = (model: CausalLM, outputs: ScoredOutputs<Tensor>): Tensor[] =>
  OUTPUTS.flatMap((name) => (outputs[name] === undefined ? [] : [model.engine.keep(outputs[name])]))

/** Reads outputs; waits for the device. */
export const readOutputs = async (outputs: ScoredOutputs<Tensor>): Promise<ScoredOutputs<Float32Array>> => {
  const [logprobs, entropy, values] = await Promise.all(OUTPUTS.map((name) => outputs[name]?.readFloats()))
  return { logprobs, entropy, values }
}

/** Enqueues a forward pass without gradients. The caller disposes the tensors. */
export const frozenOutputs = (
  model: CausalLM,
  batch: MicroBatch,
  wanted: WantedOutputs,
  options: PassOptions = {},
): ScoredOutputs<Tensor> => {
  const { engine } = model
  return engine.scope(() =>
    engine.noGrad(() => {
      const outputs = scoredOutputs(model, batch, wanted, options)
      kept(model, outputs)
      return outputs
    }),
  )
}

/** Frees outputs. */
export const disposeOutputs = (outputs: ScoredOutputs<Tensor>): void => {
  for (const name of OUTPUTS) outputs[name]?.dispose()
}

/** Runs a forward pass without gradients and reads what is wanted of it. */
export const hostOutputs = async (
  model: CausalLM,
  batch: MicroBatch,
  wanted: WantedOutputs,
  options: PassOptions = {},
): Promise<ScoredOutputs<Float32Array>> => {
  const outputs = frozenOutputs(model, batch, wanted, options)
  try {
    return await readOutputs(outputs)
  } finally {
    disposeOutputs(outputs)
  }
}

/** What the linear layers make of a text, kept as a rollout keeps that of a prompt: of the last layer what training needs of all rows. The caller disposes it. */
export const keptRows = (model: CausalLM, tokens: Int32Array): KnownRows | undefined => {
  const { engine } = model
  const kept = recordRows(tokens.length)
  if (kept === undefined) return undefined
  engine.noGrad(() =>
    engine.scope(() => {
      const read = Int32Array.of(tokens.length - 1)
      const context = packedContext(engine, SequenceLayout.fromLengths([tokens.length]), { read })
      model.hidden(
        { ...context, block: (...args) => withRows(engine, kept.memo, () => context.block(...args)) },
        engine.from(tokens),
      )
    }),
  )
  return kept.known
}

/** Log-probs of the scored rows f32 `[scored]` without gradients, dropout off; with `entropy` also the entropies. Waits for the device. */
export const readLogprobs = async (
  model: CausalLM,
  batch: MicroBatch,
  options: { readonly adapters?: boolean; readonly entropy?: boolean; readonly temperature?: number } = {},
): Promise<{ logprobs: Float32Array; entropy: Float32Array | undefined }> => {
  const { entropy, adapters = true, temperature = 1 } = options
  const read = await hostOutputs(model, batch, { entropy: entropy ?? false }, { adapters, temperature })
  return { logprobs: read.logprobs!, entropy: read.entropy }
}

/** Outputs with the tape that leads back from them; the caller runs or disposes the tape and disposes the tensors. */
export const recordedOutputs = (
  model: CausalLM,
  batch: MicroBatch,
  wanted: WantedOutputs,
  options: PassOptions,
): { readonly outputs: ScoredOutputs<Tensor>; readonly tape: Tape } => {
  const { engine } = model
  return engine.scope(() => {
    let outputs: ScoredOutputs<Tensor> | undefined
    const { tape } = engine.record(() => {
      outputs = scoredOutputs(model, batch, wanted, options)
      return OUTPUTS.flatMap((name) => outputs![name] ?? [])
    })
    kept(model, outputs!)
    return { outputs: outputs!, tape }
  })
}

/** Log-probs with the tape that leads back from them; the caller runs or disposes the tape and disposes the tensors. */
export const recordedLogprobs = (
  model: CausalLM,
  batch: MicroBatch,
  options: PassOptions & { readonly entropy?: boolean },
): { logprobs: Tensor; entropy: Tensor | undefined; tape: Tape } => {
  const { outputs, tape } = recordedOutputs(model, batch, { entropy: options.entropy ?? false }, options)
  return { logprobs: outputs.logprobs!, entropy: outputs.entropy, tape }
}
