import type { Precision } from "@sloth/core"
import type { LoraConfig } from "@sloth/model"
import type { ActivationPolicy } from "@sloth/tensor"
import type { MachineSpeed } from "./calibrate.ts"
import type { StandingMemory } from "./meter.ts"

/** Forecast of memory, in bytes. */
export interface MemoryPlan extends StandingMemory {
  /** Largest of what the forward and backward passes hold beside the standing memory. */
  readonly activationBytes: number
  /** Largest of what making the units of a step holds beside the standing memory, given back before the update; for methods that generate during training. */
  readonly rolloutBytes?: number
  /** What rewards hold while the run lasts: reward models. */
  readonly rewardBytes?: number
  /** The process before the model was loaded. */
  readonly runtimeBytes: number
  /** Room for what a backend keeps for reuse, scratch of its kernels, and growth of the process. */
  readonly reserveBytes: number
  /** Forecast of the largest resident size of the process: all of the above. */
  readonly peakBytes: number
  readonly budgetBytes: number
}

/** Forecast of disk space, in bytes. */
export interface DiskPlan {
  readonly checkpointBytes: number
  /** Checkpoints that can lie there at once, the one being written included. */
  readonly checkpoints: number
  /** Final adapter or weights. */
  readonly outputBytes: number
  /** The file of activations that memory has no room for; absent without the policy `spill`. */
  readonly spillBytes?: number
  /** Bytes that a mean step writes to it and reads from it. */
  readonly spilledPerStep?: number
  readonly neededBytes: number
  readonly freeBytes: number
}

/** Forecast of time; undefined where nothing was measured. */
export interface TimePlan extends MachineSpeed {
  readonly secondsPerStep: number
  readonly seconds: number
  readonly tokensPerSecond: number
}

/** Everything that will happen, before anything does. Plain data: it is stored with the run. */
export interface RunPlan {
  readonly model: string
  readonly method: string
  /** Of the large products; absent in plans from before there was a choice, which means f32. */
  readonly precision?: Precision
  readonly parameters: number
  readonly trainableParameters: number
  readonly adapter:
    | (Pick<LoraConfig, "rank" | "alpha" | "dropout" | "rankStabilized"> & {
        readonly layers: number
        readonly modulesToSave: readonly string[]
      })
    | undefined
  /** Rows with something to learn. */
  readonly rows: number
  /** Rows that are only evaluated. */
  readonly evaluationRows: number
  /** Tokens and scored tokens of one epoch. */
  readonly epochTokens: number
  readonly epochScoredTokens: number
  /** Longest row, in tokens. */
  readonly longest: number
  readonly steps: number
  readonly stepsPerEpoch: number
  readonly epochs: number
  readonly batch: number
  /** Forecast of all tokens of the run. */
  readonly tokens: number
  readonly tokenBudget: number
  readonly packing: boolean
  readonly policy: ActivationPolicy
  /** Prompts of a rollout whose passes are kept for the step, which does not compute them again, and their bytes; none when absent. */
  readonly kept?: { readonly prompts: number; readonly bytes: number }
  /** Mean number of micro-batches a step. */
  readonly microBatchesPerStep: number
  /** Multiply-adds of a mean step, counted as 2. */
  readonly flopsPerStep: number
  readonly warmupSteps: number
  readonly memory: MemoryPlan
  readonly disk: DiskPlan
  readonly time: TimePlan | undefined
  /** What the user should know before the start. */
  readonly warnings: readonly string[]
}
