import { decodeConfig, SlothError, type Awaitable, type ConfigSchema, type ProvidedObjective } from "@sloth/core"
import type { DatasetOptions, PreviewPiece } from "@sloth/data"
import type { KnownRows } from "@sloth/tensor"
import type { TrainData } from "./data.ts"
import type { ReferenceSync } from "./synced-reference.ts"

/** A run of tokens of a unit; `parent` is the index of the segment that it continues. */
export interface UnitSegment {
  readonly length: number
  readonly parent: number | null
}

/**
 * What the trainer never takes apart: one text, or a small forest of texts that share beginnings (a preference pair and its prompt). Scored positions are pairs of a
 * row and the token it has to predict, so that two continuations can be predicted from one last row of their prompt.
 */
export interface TrainingUnit {
  /** Token ids of all segments one after the other, int32 `[rows]`; only what the scored positions need. */
  readonly tokens: Int32Array
  /** In row order, parents before children; the lengths add up to `tokens.length`. */
  readonly segments: readonly UnitSegment[]
  /** Rows whose hidden state predicts a target, int32 `[scored]`, ascending. */
  readonly scoredRows: Int32Array
  /** Token that each scored row has to predict, int32 `[scored]`. */
  readonly targets: Int32Array
  /** Tokens of the source row or rows, for counts; at least `tokens.length`. */
  readonly sourceTokens: number
  /** Row of the data set it came from, from 0. */
  readonly row: number
  /** What a pass with the weights as they are now has made of the unit's first `rows` rows, from row `from` of that pass on; the step takes it instead of computing it. */
  readonly prefix?: { readonly known: KnownRows; readonly from: number; readonly rows: number }
}

/**
 * A loss Σ weight · (-log p) / normaliser whose weights are known before the forward pass: loss and gradient come from one fused kernel, in one pass.
 */
export interface CrossEntropyLoss<Unit extends TrainingUnit = TrainingUnit> {
  readonly kind: "cross-entropy"
  /** Weight of each scored position, f32 `[scored]`; 1 when absent. */
  weights?(unit: Unit): Float32Array
  /** What the unit adds to the denominator of its optimizer step; its scored positions when absent. Method syntax on purpose: losses of any unit fit the trainer. */
  size?(unit: Unit): number
}

/** Where a micro-batch stands in its optimizer step. */
export interface HostBatch<Unit extends TrainingUnit = TrainingUnit> {
  readonly units: readonly Unit[]
  /** First position of each unit in the arrays of positions, and their length at the end: `[units + 1]`. */
  readonly starts: readonly number[]
  /** Place of each unit among all units of the step. */
  readonly indices: readonly number[]
  /** Sum of `size` over all units of the optimizer step, whatever micro-batch they are in. */
  readonly normaliser: number
  /** Optimizer step, from 1; 0 in an evaluation, whose rows are one step. */
  readonly step: number
}

/** Log-probabilities of the scored positions of one micro-batch. */
export interface LogprobBatch<Unit extends TrainingUnit = TrainingUnit> extends HostBatch<Unit> {
  /** log p of every target under the model that is trained, f32 `[positions]`, nats. */
  readonly logprobs: Float32Array
  /** The same under the base model, adapters off; present when the objective asks for it. */
  readonly reference: Float32Array | undefined
  /** Entropy of the distribution at every position, nats; present when the objective asks for it. */
  readonly entropy: Float32Array | undefined
  /** What the score head makes of every position; present when the objective asks for it. */
  readonly values?: Float32Array | undefined
  /** What `gather` told of every unit of the step, in the order of the step; present when the objective has `gather`. */
  readonly gathered?: readonly (readonly number[])[] | undefined
}

/** What a log-prob loss makes of a micro-batch. The parts of a step are added up, so everything is already divided by the normaliser. */
export interface LogprobResult {
  readonly loss: number
  /** d loss / d logprobs, `[positions]`. */
  readonly dlogp: Float32Array | Float64Array
  /** d loss / d entropy, `[positions]`, for a loss that has a term of the entropies; only with `entropy`. */
  readonly dentropy?: Float32Array | Float64Array
  /** d loss / d values, `[positions]`, with `values`. */
  readonly dvalues?: Float32Array | Float64Array
  /** Figures for the step's event; parts are added up like the loss. */
  readonly metrics?: Readonly<Record<string, number>>
}

/**
 * A loss that is any function of log-probabilities: a forward pass, then plain TypeScript (use doubles), then the backward pass with the gradient it gives.
 * Preference losses and policy gradients have this form.
 */
export interface LogprobLoss<Unit extends TrainingUnit = TrainingUnit> {
  readonly kind: "logprobs"
  /** Wants log-probs of the base model too; needs an adapter, because full fine-tuning changes the base. */
  readonly reference?: boolean
  /** Lets the reference follow the policy instead of staying the base model; with `reference`, or where a source of units asks for reference log-probs. */
  readonly syncReference?: ReferenceSync
  /** Log-probs are those of the distribution at this temperature; 1 when absent. */
  readonly temperature?: number
  /** Wants entropies; `compute` may then give a gradient by them. */
  readonly entropy?: boolean
  /** Wants the score head's output at every scored position, and learns it: the critic of a policy gradient. */
  readonly values?: boolean
  /** What the unit adds to the normaliser; its scored positions when absent. */
  size?(unit: Unit): number
  /**
   * For losses in which the rows of a step meet (an estimate over all of them, an order among them): what each unit of a micro-batch tells the others, a few
   * numbers each. It is asked of all micro-batches of a step before the first `compute`, which finds the answers of the whole step in `gathered`. Where a step has
   * several micro-batches that takes an additional forward pass of each.
   */
  gather?(batch: LogprobBatch<Unit>): readonly (readonly number[])[]
  /** What the loss remembers from step to step; it goes into checkpoints. */
  readonly state?: LossState
  compute(batch: LogprobBatch<Unit>): LogprobResult
}

/** The memory of a loss, as plain data that survives JSON. */
export interface LossState {
  save(): unknown
  /** Takes back what `save` gave. */
  restore(saved: unknown): void
}

/** Outputs of the score head at the scored positions of one micro-batch. */
export interface ValueBatch<Unit extends TrainingUnit = TrainingUnit> extends HostBatch<Unit> {
  /** f32 `[positions]`. */
  readonly values: Float32Array
}

/** What a value loss makes of a micro-batch, divided by the normaliser already. */
export interface ValueResult {
  readonly loss: number
  /** d loss / d values, `[positions]`. */
  readonly dvalues: Float32Array | Float64Array
  readonly metrics?: Readonly<Record<string, number>>
}

/** A loss that is any function of the score head's outputs: reward models. The language model's own output layer is never run. */
export interface ValueLoss<Unit extends TrainingUnit = TrainingUnit> {
  readonly kind: "values"
  /** What the unit adds to the normaliser; its scored positions when absent. */
  size?(unit: Unit): number
  compute(batch: ValueBatch<Unit>): ValueResult
}

/**
 * A loss Σ divergence / normaliser of the model's distributions at the scored positions from a teacher's, over the whole vocabulary: loss and gradient come from one pass, and
 * logits are there for a block of rows at a time. The teacher is the run's (`teacher` of the training options).
 */
export interface DivergenceLoss<Unit extends TrainingUnit = TrainingUnit> {
  readonly kind: "divergence"
  /** 0: KL(teacher || model); 1: KL(model || teacher); between: the generalised Jensen-Shannon divergence. */
  readonly beta: number
  /** Temperature that both distributions are compared at; 1 when absent. */
  readonly temperature?: number
  /** What the unit adds to the normaliser; its scored positions when absent. */
  size?(unit: Unit): number
}

/** Any form of a loss. */
export type ObjectiveLoss<Unit extends TrainingUnit = TrainingUnit> =
  | CrossEntropyLoss<Unit>
  | DivergenceLoss<Unit>
  | LogprobLoss<Unit>
  | ValueLoss<Unit>

/** True for losses that read the score head, which the model must then have. */
export const wantsScoreHead = (loss: ObjectiveLoss): boolean =>
  loss.kind === "values" || (loss.kind === "logprobs" && loss.values === true)

/** True for losses that compare with a reference model. */
export const wantsReference = (loss: ObjectiveLoss): boolean => loss.kind === "logprobs" && loss.reference === true

/** True for losses whose score head is a critic: it helps to train the language model and is no part of what the run makes. */
export const isCritic = (loss: ObjectiveLoss): boolean => loss.kind === "logprobs" && loss.values === true

/** What an objective may use while it prepares rows. */
export interface PrepareContext {
  /** Its own settings, decoded by `config`; undefined when it has none. */
  readonly settings: unknown
  readonly signal: AbortSignal | undefined
}

/** How an objective that reads its own kind of rows is asked to open them: the data settings of the training configuration and the model's tokenizer. */
export interface OpenRowsOptions extends Required<
  Pick<DatasetOptions, "tokenizer" | "mask" | "maxLength" | "overlong" | "heldOut" | "seed">
> {
  readonly registry?: DatasetOptions["registry"]
  /** Chat template source; the model's own when absent. */
  readonly template?: string
  readonly signal?: AbortSignal
  /** The method's settings, decoded. */
  readonly settings?: unknown
}

/** Rows as they are trained on, with what a user wants to see of them first. */
export interface OpenedRows<Row> extends TrainData<Row> {
  readonly examples: readonly Row[]
  readonly heldOut: readonly Row[]
  /** Printable sentence on what the rows were recognised as. */
  readonly statement: string
  /** Printable lines on what became of the rows. */
  readonly summary: string
  /** The first example in stretches of scored and unscored text. */
  readonly preview: readonly PreviewPiece[]
}

/**
 * A training method: how rows become units, and the loss of a micro-batch of them. The trainer knows no algorithm. Losses must be sums over units divided by
 * the normaliser of the whole optimizer step, which makes every split into micro-batches give the same gradient.
 */
export interface Objective<Row = never, Unit extends TrainingUnit = TrainingUnit> extends ProvidedObjective {
  /** What `method` takes: "sft". */
  readonly name: string
  readonly config?: ConfigSchema
  /**
   * Opens rows of its own kind, in files or given as objects. Methods without it learn from texts and conversations, as `openDataset` of `@sloth/data` opens them.
   * Method syntax on purpose, as below.
   */
  open?(source: string | readonly string[] | readonly object[], options: OpenRowsOptions): Awaitable<OpenedRows<Row>>
  /** Rows to units, in order. Rows with nothing to learn are left out. Method syntax on purpose: objectives of any row fit a list of objectives. */
  prepare(rows: readonly Row[], context: PrepareContext): Awaitable<readonly Unit[]>
  /** The loss for these settings. */
  loss(settings: unknown): ObjectiveLoss<Unit>
}

/** What a unit adds to the normaliser of its step. */
export const unitSize = <Unit extends TrainingUnit>(loss: ObjectiveLoss<Unit>, unit: Unit): number =>
  loss.size === undefined ? unit.targets.length : loss.size(unit)

/** Decodes the settings of a method by its schema. Errors: SLOTH_CONFIG_INVALID; SLOTH_OBJECTIVE_SETTINGS where it takes none. */
export const decodeSettings = (objective: Pick<Objective, "name" | "config">, settings: unknown): unknown => {
  if (objective.config !== undefined) return decodeConfig(objective.config, settings ?? {}, { name: objective.name })
  if (settings === undefined) return undefined
  throw new SlothError("SLOTH_OBJECTIVE_SETTINGS", {
    what: `The method "${objective.name}" takes no settings.`,
    next: "Leave them out.",
    fields: { method: objective.name },
  })
}
