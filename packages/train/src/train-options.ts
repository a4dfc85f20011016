import type { Logger, Reward, RolloutFactory, RunCallback, RunEvent, Tracker } from "@sloth/core"
import type { Example } from "@sloth/data"
import type { CausalLM, LoraConfig } from "@sloth/model"
import type { Engine } from "@sloth/tensor"
import type { BestEvaluation } from "./checkpoint.ts"
import type { TrainConfigInput } from "./config.ts"
import type { TrainData } from "./data.ts"
import type { Evaluation } from "./evaluate.ts"
import type { MeterOptions } from "./meter.ts"
import type { TrainModel } from "./model-files.ts"
import type { Objective } from "./objective.ts"
import type { RunPlan } from "./plan.ts"

/** What planning and training have in common. */
export interface PlanOptions<Row = Example> {
  readonly engine: Engine
  readonly model: TrainModel
  readonly data: TrainData<Row>
  /** Settings; defaults are filled in. On resuming, only those that should change. */
  readonly config?: TrainConfigInput
  /** The training method; supervised fine-tuning when absent. */
  readonly objective?: Objective<Row>
  /** The method's own settings, decoded by its schema. */
  readonly settings?: unknown
  /** What completions are judged by, for methods that generate during training. */
  readonly rewards?: readonly Reward[]
  /** The model that methods such as gkd learn from; it has the tokenizer of the model that is trained. */
  readonly teacher?: TrainModel
  /** Makes the engine that generates during training; one that shares the weights that are trained when absent. */
  readonly rollout?: RolloutFactory
  /** False leaves the measurement of the machine's speed out of the plan. */
  readonly measure?: boolean
  /** How the backend rounds allocations; see `createMeterBackend`. */
  readonly meter?: MeterOptions
  readonly signal?: AbortSignal
}

/** What {@link train} takes. */
export interface TrainOptions<Row = Example> extends PlanOptions<Row> {
  /** Run folder; `config.run`, or a new one under `runs/`, when absent. */
  readonly run?: string
  /** Continues the run in the folder from its last checkpoint. */
  readonly resume?: boolean
  /** Name of the base model in the adapter's files; the model's path when absent. */
  readonly base?: string
  readonly trackers?: readonly Tracker[]
  readonly callbacks?: readonly RunCallback[]
  readonly onEvent?: (event: RunEvent) => void
  readonly logger?: Logger
  /** What `config.json` of the run records besides: the command line, where model and data came from, versions of plugins. */
  readonly record?: {
    readonly command?: string
    readonly inputs?: Readonly<Record<string, unknown>>
    readonly versions?: Readonly<Record<string, string>>
  }
  /** True hands the trained model over in the result; the caller disposes it. */
  readonly keepModel?: boolean
}

/** How a run ended. */
export interface TrainResult {
  readonly status: "completed" | "interrupted" | "stopped"
  /** The run folder. */
  readonly run: string
  /** Optimizer steps done, of `plan.steps`. */
  readonly steps: number
  /** Loss of the last step, nats per scored token; NaN when no step ran. */
  readonly finalLoss: number
  /** The last evaluation. */
  readonly evaluation: Evaluation | undefined
  readonly best: BestEvaluation | undefined
  /** Folder of the final adapter in PEFT form; undefined when interrupted or with full fine-tuning. */
  readonly adapter: string | undefined
  /** Settings of the LoRA that was trained, those of a starting adapter included; undefined with full fine-tuning. */
  readonly lora: LoraConfig | undefined
  /** Folder of the trained weights after full fine-tuning. */
  readonly weights: string | undefined
  /** Folder of the newest checkpoint. */
  readonly checkpoint: string | undefined
  readonly plan: RunPlan
  readonly tokens: number
  readonly seconds: number
  /** The command that continues an interrupted run. */
  readonly resumeCommand: string | undefined
  /** With `keepModel`. */
  readonly model: CausalLM | undefined
}
