import { SlothError } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import { hostOutputs, type PassOptions, type ScoredOutputs, type WantedOutputs } from "./forward.ts"
import type { MicroBatch } from "./micro-batch.ts"
import { readReferenceLogprobs, type SyncedReference } from "./synced-reference.ts"
import type { HostBatch, LogprobBatch, LogprobLoss, TrainingUnit, ValueLoss } from "./objective.ts"

/** Losses that are computed on the host, from what a forward pass gives. */
export type HostLoss<Unit extends TrainingUnit = TrainingUnit> = LogprobLoss<Unit> | ValueLoss<Unit>

/** What a loss reads of a forward pass. */
export const wantedOutputs = (loss: HostLoss): WantedOutputs =>
  loss.kind === "values"
    ? { logprobs: false, values: true }
    : { entropy: loss.entropy ?? false, values: loss.values ?? false }

/** The temperature of a loss, for the options of a pass. */
export const temperatureOf = (loss: HostLoss): Pick<PassOptions, "temperature"> =>
  loss.kind === "values" || loss.temperature === undefined ? {} : { temperature: loss.temperature }

/** Log-probs under the reference where the loss compares with it. */
export const referenceLogprobs = async (
  model: CausalLM,
  loss: HostLoss,
  batch: MicroBatch,
  synced: SyncedReference | undefined,
): Promise<Float32Array | undefined> =>
  loss.kind === "logprobs" && loss.reference === true
    ? readReferenceLogprobs(model, batch, synced, temperatureOf(loss))
    : undefined

/** A step's micro-batch as its loss sees it. */
export interface HostPart<Unit extends TrainingUnit = TrainingUnit> extends HostBatch<Unit> {
  readonly outputs: ScoredOutputs<Float32Array>
  readonly reference: Float32Array | undefined
}

const logprobBatch = <Unit extends TrainingUnit>(
  { outputs, reference, ...where }: HostPart<Unit>,
  gathered: LogprobBatch<Unit>["gathered"],
): LogprobBatch<Unit> => ({
  ...where,
  logprobs: outputs.logprobs!,
  reference,
  entropy: outputs.entropy,
  values: outputs.values,
  gathered,
})

/** Asks the units of a micro-batch what the others have to know, and puts it in its place in the step. Errors: SLOTH_OBJECTIVE_GATHER. */
export const gatherPart = <Unit extends TrainingUnit>(
  loss: LogprobLoss<Unit>,
  part: HostPart<Unit>,
  into: (readonly number[])[],
): void => {
  const told = loss.gather!(logprobBatch(part, undefined))
  if (told.length !== part.units.length)
    throw new SlothError("SLOTH_OBJECTIVE_GATHER", {
      what: `The objective told of ${told.length} units where there are ${part.units.length}.`,
      next: "gather must return one list of numbers a unit.",
      fields: { told: told.length, units: part.units.length },
    })
  for (const [u, index] of part.indices.entries()) into[index] = told[u]!
}

/** A loss on the host with its gradients. */
export interface HostResult {
  readonly loss: number
  readonly dlogp: Float32Array | Float64Array | undefined
  readonly dentropy: Float32Array | Float64Array | undefined
  readonly dvalues: Float32Array | Float64Array | undefined
  readonly metrics: Readonly<Record<string, number>>
}

const requireGradients = (what: string, gradients: ArrayLike<number> | undefined, positions: number): void => {
  if (gradients?.length === positions) return
  throw new SlothError("SLOTH_OBJECTIVE_GRADIENT", {
    what: `The objective gave ${gradients?.length ?? "no"} gradients for ${positions} ${what}.`,
    next: "compute must return one number a scored position.",
    fields: { gradients: gradients?.length ?? 0, positions },
  })
}

/** Computes a loss of any kind. Errors: SLOTH_OBJECTIVE_GRADIENT. */
export const computePart = <Unit extends TrainingUnit>(
  loss: HostLoss<Unit>,
  part: HostPart<Unit>,
  gathered: LogprobBatch<Unit>["gathered"],
): HostResult => {
  const { outputs } = part
  if (loss.kind === "values") {
    const { units, starts, indices, normaliser, step } = part
    const result = loss.compute({ units, starts, indices, normaliser, step, values: outputs.values! })
    requireGradients("values", result.dvalues, outputs.values!.length)
    return {
      loss: result.loss,
      dlogp: undefined,
      dentropy: undefined,
      dvalues: result.dvalues,
      metrics: result.metrics ?? {},
    }
  }
  const result = loss.compute(logprobBatch(part, gathered))
  requireGradients("log-probs", result.dlogp, outputs.logprobs!.length)
  if (loss.values === true) requireGradients("values", result.dvalues, outputs.values!.length)
  if (result.dentropy !== undefined)
    requireGradients("entropies", loss.entropy === true ? result.dentropy : undefined, outputs.logprobs!.length)
  return {
    loss: result.loss,
    dlogp: result.dlogp,
    dentropy: result.dentropy,
    dvalues: loss.values === true ? result.dvalues : undefined,
    metrics: result.metrics ?? {},
  }
}

/**
 * What all units of a step tell each other, by a forward pass of each micro-batch; undefined where the loss asks for nothing. References are kept, so that
 * `compute` needs no second pass for them.
 */
export const gatherStep = async <Unit extends TrainingUnit>(
  model: CausalLM,
  loss: HostLoss<Unit>,
  batches: readonly MicroBatch<Unit>[],
  where: (i: number) => HostBatch<Unit>,
  options: (i: number) => PassOptions,
  synced: SyncedReference | undefined,
): Promise<
  { readonly gathered: (readonly number[])[]; readonly references: (Float32Array | undefined)[] } | undefined
> => {
  if (loss.kind !== "logprobs" || loss.gather === undefined) return undefined
  const gathered: (readonly number[])[] = []
  const references: (Float32Array | undefined)[] = []
  for (const [i, batch] of batches.entries()) {
    references.push(await referenceLogprobs(model, loss as HostLoss, batch, synced))
    const outputs = await hostOutputs(model, batch, wantedOutputs(loss as HostLoss), {
      ...options(i),
      ...temperatureOf(loss as HostLoss),
    })
    gatherPart(loss, { ...where(i), outputs, reference: references[i] }, gathered)
  }
  return { gathered, references }
}
