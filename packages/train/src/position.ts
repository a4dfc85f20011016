import { epochOrder } from "@sloth/data"
import type { TrainConfig } from "./config.ts"

/** Where the rows of each optimizer step come from: a pure function of the step, so that resuming needs nothing but its number. */
export class StepPositions {
  /** Rows of the data set. */
  readonly rows: number
  readonly stepsPerEpoch: number
  /** Optimizer steps of the whole run. */
  readonly total: number
  readonly #config: Pick<TrainConfig, "batch" | "seed" | "order">
  #epoch = -1
  #order: Int32Array = new Int32Array()

  constructor(rows: number, config: Pick<TrainConfig, "batch" | "seed" | "order" | "steps" | "epochs">) {
    this.rows = rows
    this.stepsPerEpoch = Math.ceil(rows / config.batch)
    this.total = config.steps ?? Math.max(1, Math.ceil(config.epochs * this.stepsPerEpoch))
    this.#config = config
  }

  /** Epoch (from 0) and first position in it of step `step` (from 1). */
  at(step: number): { readonly epoch: number; readonly position: number } {
    const epoch = Math.floor((step - 1) / this.stepsPerEpoch)
    return { epoch, position: ((step - 1) % this.stepsPerEpoch) * this.#config.batch }
  }

  /** Indices of the rows of step `step` (from 1); the last step of an epoch may have fewer. */
  indices(step: number): Int32Array {
    const { epoch, position } = this.at(step)
    if (epoch !== this.#epoch) {
      this.#order = epochOrder(this.rows, this.#config.seed, epoch, this.#config.order)
      this.#epoch = epoch
    }
    return this.#order.subarray(position, Math.min(this.rows, position + this.#config.batch))
  }
}
