import { SlothError } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import { weightFormat, type ActivationPolicy, type Tensor } from "@sloth/tensor"
import { crossEntropyPass, disposeOutputs, divergencePass, readOutputs, recordedOutputs } from "./forward.ts"
import {
  computePart,
  gatherPart,
  gatherStep,
  referenceLogprobs,
  temperatureOf,
  wantedOutputs,
  type HostLoss,
  type HostPart,
} from "./host-loss.ts"
import { buildMicroBatch, knownSpans, splitUnits, type MicroBatch, type SplitOptions } from "./micro-batch.ts"
import { unitSize, type HostBatch, type ObjectiveLoss, type TrainingUnit } from "./objective.ts"
import { clipFactor, type AdamW } from "./optimizer.ts"
import type { SyncedReference } from "./synced-reference.ts"
import { teacherPass } from "./teacher.ts"
import { MICRO_BATCHES_AHEAD, yieldToLoop } from "./internal/yield.ts"

/** Weights that are dequantised at a time to look for a NaN: 16 MB. */
const CHECKED_AT_ONCE = 4 << 20

/** How optimizer steps run. */
export interface StepOptions<Unit extends TrainingUnit = TrainingUnit> extends SplitOptions {
  readonly loss: ObjectiveLoss<Unit>
  readonly policy: ActivationPolicy
  /** Seed of dropout. */
  readonly seed: number
  /** 0 switches clipping off. */
  readonly maxGradNorm: number
  /** The reference that follows the policy, for a loss with `syncReference`; it is moved after updates. The caller's to free. */
  readonly reference?: SyncedReference
  /** The teacher of a loss of the kind "divergence"; the caller's to free. */
  readonly teacher?: CausalLM
}

/** What one optimizer step did. */
export interface StepResult {
  /** Mean over the step: for SFT nats per scored token. */
  readonly loss: number
  /** Global L2 norm before clipping. */
  readonly gradNorm: number
  /** Tokens of the rows, unscored ones included. */
  readonly tokens: number
  readonly scoredTokens: number
  readonly microBatches: number
  readonly metrics: Readonly<Record<string, number>>
}

/**
 * Runs optimizer steps on a model: micro-batches, clipping, update. The trainer drives it with rows of a data set; an algorithm that makes its own data between
 * steps can drive it directly.
 */
export class StepRunner<Unit extends TrainingUnit = TrainingUnit> {
  readonly #model: CausalLM
  readonly #optimizer: AdamW
  readonly #options: StepOptions<Unit>

  constructor(model: CausalLM, optimizer: AdamW, options: StepOptions<Unit>) {
    this.#model = model
    this.#optimizer = optimizer
    this.#options = options
    if (
      options.loss.kind === "logprobs" &&
      options.loss.reference === true &&
      model.trainables().some((t) => t.group === "weights")
    )
      throw new SlothError("SLOTH_TRAIN_REFERENCE", {
        what: "This objective compares with the base model, but the base model's own weights are trained.",
        next: "Train an adapter without modulesToSave, and without full.",
      })
  }

  /**
   * One optimizer step (from 1) over `units`; `factor` is the schedule's. Only one read waits for the device, before the update: the loss of every micro-batch and the
   * gradient norms come in one piece. Errors: SLOTH_TRAIN_NAN, naming the first bad tensor; the parameters are then as before the step.
   */
  async run(step: number, units: readonly Unit[], factor: number): Promise<StepResult> {
    const { loss, seed, maxGradNorm } = this.#options
    const { engine } = this.#model
    const { kernels } = engine.backend
    const split = splitUnits(units, this.#options)
    const batches = split.map((indices) => buildMicroBatch(indices.map((i) => units[i]!)))
    const normaliser = units.reduce((n, u) => n + unitSize(loss, u), 0)
    const parameters = this.#optimizer.parameters
    const sums = engine.keep(engine.zeros([batches.length + parameters.length], "f64"))
    const metrics: Record<string, number> = {}
    const hostLosses: (number | undefined)[] = []
    // The high word of the seed separates micro-batches from each other and from the draws of first weights.
    const dropoutOf = (i: number) => ({ seed: (seed % 2 ** 32) + (i + 1) * 2 ** 32, step })
    const where = (i: number): HostBatch<Unit> => {
      const { units: own, starts } = batches[i]!
      return { units: own, starts, indices: split[i]!, normaliser, step }
    }
    try {
      // A step in one piece gathers from the pass that it learns by.
      const told =
        loss.kind === "cross-entropy" || loss.kind === "divergence" || batches.length === 1
          ? undefined
          : await gatherStep(
              this.#model,
              loss,
              batches,
              where,
              (i) => ({ dropout: dropoutOf(i) }),
              this.#options.reference,
            )
      for (const [i, batch] of batches.entries()) {
        const dropout = dropoutOf(i)
        if (loss.kind === "divergence") {
          const coef = new Float32Array(batch.targets.length).fill(1 / normaliser)
          const pass = teacherPass(loss, this.#options.teacher)
          divergencePass(this.#model, batch, pass, coef, { policy: this.#options.policy, dropout }, sums, i)
        } else if (loss.kind === "cross-entropy") {
          const weighted = loss.weights !== undefined
          const coef = new Float32Array(batch.targets.length).fill(1 / normaliser)
          if (loss.weights !== undefined)
            for (const [u, unit] of batch.units.entries()) {
              const weights = loss.weights(unit)
              for (let k = 0; k < weights.length; k++) coef[batch.starts[u]! + k] = weights[k]! / normaliser
            }
          crossEntropyPass(this.#model, batch, coef, { policy: this.#options.policy, dropout }, sums, i, weighted)
        } else {
          const result = await this.#hostStep(
            loss,
            batch,
            where(i),
            dropout,
            told?.gathered,
            told?.references[i],
            batches.slice(i + 1),
          )
          hostLosses[i] = result.loss
          for (const [name, value] of Object.entries(result.metrics)) metrics[name] = (metrics[name] ?? 0) + value
        }
        // Enqueueing takes a few milliseconds: timers, signals and the terminal get their turn in between.
        if (i + 1 < batches.length) {
          await yieldToLoop()
          if (i % MICRO_BATCHES_AHEAD === MICRO_BATCHES_AHEAD - 1) await engine.backend.synchronize()
        }
      }
      for (const [i, { tensor }] of parameters.entries()) {
        const g = tensor.grad
        if (g !== undefined) kernels.sumSquares(sums.handle, batches.length + i, g.handle, g.size)
      }
      const read = (await sums.read()) as Float64Array
      let total = 0
      for (let i = 0; i < batches.length; i++)
        total +=
          hostLosses[i] ??
          (loss.kind === "cross-entropy" && loss.weights === undefined ? read[i]! / normaliser : read[i]!)
      let squares = 0
      for (let i = batches.length; i < read.length; i++) squares += read[i]!
      const gradNorm = Math.sqrt(squares)
      if (!Number.isFinite(total) || !Number.isFinite(gradNorm))
        throw await this.#diagnose(step, batches, read, hostLosses)
      this.#optimizer.step(step, factor, clipFactor(gradNorm, maxGradNorm))
      this.#options.reference?.trained(step)
      return {
        loss: total,
        gradNorm,
        tokens: units.reduce((n, u) => n + u.sourceTokens, 0),
        scoredTokens: units.reduce((n, u) => n + u.targets.length, 0),
        microBatches: batches.length,
        metrics,
      }
    } catch (error) {
      this.#model.clearGradients()
      throw error
    } finally {
      sums.dispose()
    }
  }

  async #hostStep(
    loss: HostLoss<Unit>,
    batch: MicroBatch<Unit>,
    where: HostBatch<Unit>,
    dropout: { seed: number; step: number },
    gathered: (readonly number[])[] | undefined,
    known: Float32Array | undefined,
    later: readonly MicroBatch<Unit>[],
  ) {
    const { engine } = this.#model
    const { policy } = this.#options
    const reference = known ?? (await referenceLogprobs(this.#model, loss as HostLoss, batch, this.#options.reference))
    const wanted = wantedOutputs(loss as HostLoss)
    const { outputs, tape } = recordedOutputs(this.#model, batch, wanted, {
      policy,
      dropout,
      known: knownSpans(batch, later),
      ...temperatureOf(loss as HostLoss),
    })
    try {
      const part: HostPart<Unit> = { ...where, outputs: await readOutputs(outputs), reference }
      let all = gathered
      if (all === undefined && loss.kind === "logprobs" && loss.gather !== undefined) gatherPart(loss, part, (all = []))
      const result = computePart(loss, part, all)
      engine.scope(() =>
        tape.backward(
          [
            { tensor: outputs.logprobs, gradient: result.dlogp },
            { tensor: outputs.entropy, gradient: result.dentropy },
            { tensor: outputs.values, gradient: result.dvalues },
          ].flatMap(({ tensor, gradient }) =>
            tensor === undefined || gradient === undefined
              ? []
              : [{ tensor, gradient: engine.from(Float32Array.from(gradient), tensor.shape) }],
          ),
        ),
      )
      return result
    } finally {
      tape.dispose()
      disposeOutputs(outputs)
    }
  }

  /** Finds what went bad first: a parameter, then a frozen tensor of the model, then the loss, then a gradient. */
  async #diagnose(
    step: number,
    batches: readonly MicroBatch<Unit>[],
    read: Float64Array,
    hostLosses: readonly (number | undefined)[],
  ): Promise<SlothError> {
    const { parameters } = this.#optimizer
    const bad = await firstNonFinite(this.#model, parameters)
    const failed = (tensor: string, why: string, next: string, fields: Record<string, unknown> = {}): SlothError =>
      new SlothError("SLOTH_TRAIN_NAN", {
        what: `Step ${step} met a number that is not finite, first in the ${tensor}.`,
        why,
        next,
        fields: { step, tensor, ...fields },
      })
    if (bad !== undefined)
      return failed(
        `parameter ${bad}`,
        step === 1
          ? "No update had run yet: it was so when the model or the adapter was loaded."
          : "An update before this step made it so.",
        step === 1
          ? "The file is damaged or was made from a failed run: fetch it again, or use another."
          : "Lower learningRate, or raise epsilon.",
      )
    const frozen = await firstNonFiniteFrozen(this.#model)
    if (frozen !== undefined)
      return failed(
        `${frozen.kind} ${frozen.name}`,
        `It is not trained: it was so when the ${frozen.kind === "weight" ? "model" : "adapter"} was loaded.`,
        `The ${frozen.kind === "weight" ? "model" : "adapter"}'s file is damaged or was made from a failed run: fetch it again, or use another.`,
      )
    const loss = batches.findIndex((_, i) => !Number.isFinite(hostLosses[i] ?? read[i]!))
    if (loss >= 0) {
      const rows = [...new Set(batches[loss]!.units.map((u) => u.row))]
      return failed(
        "loss",
        `It came up in the micro-batch with rows ${rows.slice(0, 8).join(", ")}${rows.length > 8 ? ", ..." : ""}; all weights of the model and all trainable parameters are finite.`,
        "Look at these rows; a lower learningRate may keep activations in range.",
        { rows },
      )
    }
    const gradient = parameters.find((_, i) => !Number.isFinite(read[batches.length + i]!))
    return failed(
      gradient === undefined ? "gradient norm" : `gradient of ${gradient.name}`,
      "The loss and all trainable parameters are finite.",
      "Lower learningRate, or look at the rows of this step.",
      { rows: [...new Set(batches.flatMap((b) => b.units.map((u) => u.row)))] },
    )
  }
}

/**
 * The first tensor that is not trained and holds a NaN or an infinity, in whatever format it is stored: weights in the order of the model, then frozen adapters.
 * Blocks are looked at as they act, dequantised some rows at a time.
 */
export const firstNonFiniteFrozen = async (
  model: CausalLM,
): Promise<{ readonly kind: "weight" | "adapter"; readonly name: string } | undefined> => {
  const { engine } = model
  const { kernels } = engine.backend
  for (const ref of new Set(model.weights.values())) {
    if (model.trainsWeight(ref)) continue
    const cols = ref.shape.at(-1)!
    const rows = ref.shape.reduce((a, b) => a * b, 1) / cols
    const step = Math.max(1, Math.min(rows, Math.floor(CHECKED_AT_ONCE / cols)))
    const floats = ref.tensor.dtype === "f32"
    const pieces = floats ? 1 : Math.ceil(rows / step)
    const made = engine.noGrad(() =>
      engine.scope(() => {
        const counts = engine.zeros([pieces], "i32")
        if (floats) kernels.countNonFinite(counts.handle, 0, ref.tensor.handle, ref.tensor.size)
        else {
          const { code } = weightFormat(ref.tensor.dtype)
          const part = engine.empty([step, cols])
          for (let piece = 0; piece < pieces; piece++) {
            const count = Math.min(step, rows - piece * step)
            const ids = engine.from(Int32Array.from({ length: count }, (_, i) => piece * step + i))
            kernels.embedding(part.handle, ref.tensor.handle, code, ids.handle, count, rows, cols, 1) // [count, cols]
            kernels.countNonFinite(counts.handle, piece, part.handle, count * cols)
          }
        }
        return counts
      }),
    )
    const bad = ((await made.read()) as Int32Array).some((n) => n > 0)
    made.dispose()
    if (bad) return { kind: "weight", name: ref.name }
  }
  const frozen = [...model.linears].flatMap(([path, layer]) =>
    Object.entries(layer.adapter?.tensors ?? {}).flatMap(([suffix, tensor]) =>
      tensor.requiresGrad ? [] : [{ name: `base_model.model.${path}.${suffix}`, tensor }],
    ),
  )
  const name = frozen.length === 0 ? undefined : await firstNonFinite(model, frozen)
  return name === undefined ? undefined : { kind: "adapter", name }
}

/** Name of the first tensor that holds a NaN or an infinity. */
export const firstNonFinite = async (
  model: CausalLM,
  tensors: readonly { readonly name: string; readonly tensor: Tensor }[],
): Promise<string | undefined> => {
  const { engine } = model
  const counts = engine.keep(engine.empty([Math.max(1, tensors.length)], "i32"))
  try {
    for (const [i, { tensor }] of tensors.entries())
      engine.backend.kernels.countNonFinite(counts.handle, i, tensor.handle, tensor.size)
    const read = (await counts.read()) as Int32Array
    return tensors.find((_, i) => read[i]! > 0)?.name
  } finally {
    counts.dispose()
  }
}
