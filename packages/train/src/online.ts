import type { Awaitable, Reward, RolloutFactory } from "@sloth/core"
import type { CausalLM, Tokenizer } from "@sloth/model"
import type { ActivationPolicy } from "@sloth/tensor"
import type { TrainConfig } from "./config.ts"
import type { SplitOptions } from "./micro-batch.ts"
import type { Objective, TrainingUnit } from "./objective.ts"
import type { SyncedReference } from "./synced-reference.ts"

/** How optimizer steps use what is collected at once. */
export interface Reuse {
  /** Optimizer steps that a collected batch is cut into; each takes the rows of one step. */
  readonly slices: number
  /** How often every slice is trained on. */
  readonly times: number
}

/** A line of `samples.jsonl`. */
export interface SampleRecord {
  /** Optimizer step for which it was made. */
  readonly step: number
  readonly [column: string]: unknown
}

/** What a source of units works with. */
export interface SourceContext {
  /** The model that is trained, adapter in place; the source leaves it as it is. */
  readonly model: CausalLM
  readonly tokenizer: Tokenizer
  readonly config: TrainConfig
  /** Optimizer steps of the whole run. */
  readonly steps: number
  /** The method's own settings, decoded. */
  readonly settings: unknown
  /** How the steps will be split, and with what policy. */
  readonly split: SplitOptions & { readonly policy: ActivationPolicy }
  /** Prompts of a rollout whose passes the plan has room to keep for the step; none when absent. */
  readonly keptPrompts?: number
  readonly rewards: readonly Reward[]
  /** The reference that follows the policy, where the loss has one; else the reference is the base model. */
  readonly reference?: SyncedReference
  /** What the run learns from, where its loss has a teacher. */
  readonly teacher?: CausalLM
  /** Makes the engine that generates; the method's own choice when absent. */
  readonly rollout: RolloutFactory | undefined
  /** Writes the adapter as it is now to a folder, in PEFT form; absent where all weights are trained. */
  readonly saveAdapter?: (folder: string) => Promise<void>
  readonly signal: AbortSignal | undefined
  /** Records a warning in the run's events. */
  warn(code: string, message: string, step: number, fields?: Readonly<Record<string, unknown>>): Promise<void>
  /** Appends lines to `samples.jsonl`. */
  record(samples: readonly SampleRecord[]): void
  /** Shows a completion in the run's events. */
  show(sample: {
    readonly step: number
    readonly prompt: string
    readonly completion: string
    readonly reward?: number
  }): Promise<void>
}

/** The units of a step, with figures for its event. */
export interface Collected<Unit extends TrainingUnit = TrainingUnit> {
  readonly units: readonly Unit[]
  readonly metrics: Readonly<Record<string, number>>
}

/** Makes the units of optimizer steps while a run is under way. */
export interface UnitSource<Unit extends TrainingUnit = TrainingUnit> extends AsyncDisposable {
  /**
   * The units of step `step` (from 1); steps come in order. `rowsOf` says which rows of the data set a step takes; it may look ahead. What it does must follow from the run's
   * seed, the step, the weights and what {@link restore} was given, so that a resumed run repeats it. An abort throws the signal's reason.
   */
  collect(step: number, rowsOf: (step: number) => Int32Array): Promise<Collected<Unit>>
  /** Told when the update of a step is done, with the figures of its event. */
  trained?(step: number, metrics: Readonly<Record<string, number>>): Awaitable<void>
  /** What a resumed run needs besides weights and optimizer, as files of the checkpoint; called between steps. */
  save(): ReadonlyMap<string, Uint8Array>
  /** Takes back what {@link save} gave. */
  restore(files: ReadonlyMap<string, Uint8Array>): void
  /** Judges the model on rows that are not trained on: a loss where less is better, and figures. */
  evaluate?(step: number): Promise<{
    readonly loss: number
    readonly scoredTokens: number
    readonly metrics: Readonly<Record<string, number>>
  }>
}

/**
 * A method whose units are made during the run. Its `prepare` gives one unit a row, as large as what the row can become: the planner works with them. Of units that
 * {@link splitForecast} cuts, the pieces are planned.
 */
export interface OnlineObjective<Row = never, Unit extends TrainingUnit = TrainingUnit> extends Objective<Row, Unit> {
  readonly online: {
    reuse(settings: unknown): Reuse
    /** The settings to go by where defaults depend on the engine that generates; those given when absent. */
    settings?(settings: unknown, rollout: RolloutFactory | undefined): unknown
    /** The settings as far as they decide the numbers of a run: others may change when it is resumed. Those given when absent. */
    decisive?(settings: unknown): unknown
    /** True where the source compares with the reference model itself, as a KL divergence in rewards does. */
    reference?(settings: unknown): boolean
    /** Refuses, before anything starts, what the source could not work with. */
    check?(settings: unknown, rewards: readonly Reward[]): void
    /** Opens the source for the rows of a run. */
    open(rows: readonly Row[], heldOut: readonly Row[], context: SourceContext): Awaitable<UnitSource<Unit>>
    /** Cuts a unit of `prepare` as the source cuts what it makes. */
    splitForecast?(unit: TrainingUnit, tokenBudget: number): readonly TrainingUnit[]
    /**
     * Does what takes the most memory when units are made, on a model whose backend only counts: the planner takes the peak. Everything it allocates is freed when it
     * returns. `kept` prompts are kept for the step meanwhile.
     */
    rehearse?(
      model: CausalLM,
      units: readonly TrainingUnit[],
      config: TrainConfig,
      settings: unknown,
      teacher: CausalLM | undefined,
      kept: number,
    ): void
    /**
     * Prompts of a step whose passes the source can keep from making the units to training on them, and the tokens of the longest; undefined where the step's weights are not those
     * that the units are made with, or its passes are not the same.
     */
    keeps?(
      units: readonly TrainingUnit[],
      config: TrainConfig,
      settings: unknown,
      rollout: RolloutFactory | undefined,
    ): { readonly prompts: number; readonly rows: number } | undefined
  }
}

/** True for a method that makes its units during the run. */
export const isOnline = <Row>(objective: Objective<Row>): objective is OnlineObjective<Row> => "online" in objective
