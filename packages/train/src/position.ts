import { epochOrder } from "@sloth/data"
import type { TrainConfig } from "./config.ts"
import type { Reuse } from "./online.ts"

/** Where the rows of each optimizer step come from: a pure function of the step, so that resuming needs nothing but its number. */
export class StepPositions {
  /** Rows of the data set. */
  readonly rows: number
  readonly stepsPerEpoch: number
  /** Optimizer steps of the whole run. */
  readonly total: number
  readonly #config: Pick<TrainConfig, "batch" | "seed" | "order">
  readonly #reuse: Reuse
  #epoch = -1
  #order: Int32Array = new Int32Array()

  /** `reuse` is for methods that train on what they collect more than once: the rows of a step come up in that many steps. */
  constructor(
    rows: number,
    config: Pick<TrainConfig, "batch" | "seed" | "order" | "steps" | "epochs">,
    reuse: Reuse = { slices: 1, times: 1 },
  ) {
    this.rows = rows
    this.stepsPerEpoch = Math.ceil(rows / config.batch) * reuse.times
    this.total = config.steps ?? Math.max(1, Math.ceil(config.epochs * this.stepsPerEpoch))
    this.#config = config
    this.#reuse = reuse
  }

  /** Step (from 1) at which the rows of step `step` would come up if none were used again. */
  #first(step: number): number {
    const { slices, times } = this.#reuse
    const batch = Math.floor((step - 1) / (slices * times))
    return batch * slices + ((step - 1) % slices) + 1
  }

  /** Epoch (from 0) and first position in it of step `step` (from 1). */
  at(step: number): { readonly epoch: number; readonly position: number } {
    const done = this.#first(step) - 1
    const perEpoch = this.stepsPerEpoch / this.#reuse.times
    return { epoch: Math.floor(done / perEpoch), position: (done % perEpoch) * this.#config.batch }
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
