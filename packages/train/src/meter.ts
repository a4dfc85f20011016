import type { CausalLM, LoraConfig } from "@sloth/model"
import { createMeterBackend, Engine, type ActivationPolicy, type MeterBackend, type MeterReading } from "@sloth/tensor"
import type { TrainConfig } from "./config.ts"
import {
  crossEntropyPass,
  disposeOutputs,
  divergencePass,
  frozenOutputs,
  keptRows,
  recordedOutputs,
} from "./forward.ts"
import { wantedOutputs } from "./host-loss.ts"
import { buildMicroBatch, knownSpans, type MicroBatch } from "./micro-batch.ts"
import { makeTrainable, type TrainModel } from "./model-files.ts"
import { wantsScoreHead, type ObjectiveLoss, type TrainingUnit } from "./objective.ts"
import { SyncedReference } from "./synced-reference.ts"
import { teacherPass } from "./teacher.ts"
import { AdamW, parameterGroups } from "./optimizer.ts"

/** How a backend rounds allocations and what scratch its kernels take; see `createMeterBackend`. */
export type MeterOptions = NonNullable<Parameters<typeof createMeterBackend>[0]>

/** Bytes that a run holds all the time. */
export interface StandingMemory {
  /** Weights used in place from their files. */
  readonly mappedBytes: number
  /** Weights in memory: vectors, re-ordered matrices, f32 copies of weights that train. */
  readonly weightBytes: number
  readonly adapterBytes: number
  readonly gradientBytes: number
  readonly optimizerBytes: number
}

/** Prompts whose passes are kept from the rollout for the step. */
export interface KeptPrompts {
  readonly prompts: number
  /** Tokens of each. */
  readonly rows: number
  /** False where prompts lie there also while micro-batches run that take none of them; each unit takes one when absent. */
  readonly taken?: boolean
}

/** The real model, adapter, loss and optimizer on a backend that only counts. */
export class TrainMeter implements Disposable {
  readonly parameters: number
  readonly trainableParameters: number
  /** LoRA's settings; undefined with full fine-tuning. */
  readonly lora: LoraConfig | undefined
  /** Linear layers with an adapter. */
  readonly adaptedLayers: number
  readonly standing: StandingMemory
  readonly #backend: MeterBackend
  readonly #model
  readonly #optimizer: AdamW
  readonly #loss: ObjectiveLoss
  readonly #reference: SyncedReference | undefined
  readonly #teacher: CausalLM | undefined

  constructor(
    files: TrainModel,
    config: TrainConfig,
    loss: ObjectiveLoss,
    options: MeterOptions = {},
    reference = false,
    teacher?: TrainModel,
  ) {
    this.#backend = createMeterBackend(options)
    this.#loss = loss
    const { memory } = this.#backend
    const live = () => memory.stats().liveBytes
    this.#model = files.build(new Engine(this.#backend))
    this.parameters = this.#model.parameterCount
    this.#teacher = teacher?.build(this.#model.engine)
    const built = live()
    const sync = loss.kind === "logprobs" ? loss.syncReference : undefined
    this.lora = makeTrainable(this.#model, config, config.adapter, {
      scoreHead: wantsScoreHead(loss),
      reference: reference && sync === undefined,
    })
    const trainables = this.#model.trainables()
    const size = (group: string) =>
      trainables.filter((t) => t.group === group).reduce((n, t) => n + t.tensor.storage.bytes, 0)
    const attached = live()
    this.#optimizer = new AdamW(this.#model.engine, parameterGroups(this.#model, config), config)
    const optimizerBytes = live() - attached
    this.#reference = sync === undefined ? undefined : new SyncedReference(this.#model, sync)
    this.trainableParameters = trainables.reduce((n, t) => n + t.tensor.size, 0)
    this.adaptedLayers = [...this.#model.linears.values()].filter((l) => l.adapter !== undefined).length
    const adapterBytes = size("adapter")
    this.standing = {
      mappedBytes: memory.stats().mappedBytes,
      weightBytes: Math.max(built, attached - adapterBytes),
      adapterBytes: adapterBytes + (this.#reference?.bytes ?? 0),
      gradientBytes: this.trainableParameters * 4,
      optimizerBytes,
    }
  }

  /**
   * What a micro-batch of these units costs: `peakBytes` is the largest number of live bytes, standing memory included. `split` says that the step has other micro-batches: gradients
   * exist already then, and losses that gather run another forward pass. `others` are micro-batches that come in between: they leave their holes, which `touchedBytes` counts.
   * With `kept` prompts the micro-batch takes one a unit, and the others lie beside it.
   */
  measure(
    units: readonly TrainingUnit[],
    policy: ActivationPolicy,
    split = false,
    others: readonly (readonly TrainingUnit[])[] = [],
    kept: KeptPrompts = { prompts: 0, rows: 0 },
  ): MeterReading {
    const batches = [units, ...others].map((some) => buildMicroBatch(some))
    const { engine } = this.#model
    const dropout = { seed: 0, step: 1 }
    const pass = (batch: MicroBatch) => {
      if (this.#loss.kind === "divergence") {
        const sums = engine.keep(engine.zeros([1], "f64"))
        const coef = new Float32Array(batch.targets.length)
        divergencePass(this.#model, batch, teacherPass(this.#loss, this.#teacher), coef, { policy, dropout }, sums, 0)
        sums.dispose()
        return
      }
      if (this.#loss.kind === "cross-entropy") {
        const sums = engine.keep(engine.zeros([batches.length + this.#optimizer.parameters.length], "f64"))
        crossEntropyPass(
          this.#model,
          batch,
          new Float32Array(batch.targets.length),
          { policy, dropout },
          sums,
          0,
          this.#loss.weights !== undefined,
        )
        sums.dispose()
        return
      }
      const wanted = wantedOutputs(this.#loss)
      const extra = (adapters: boolean) => {
        disposeOutputs(frozenOutputs(this.#model, batch, adapters ? wanted : {}, { adapters }))
      }
      if (this.#loss.kind === "logprobs" && this.#loss.reference === true) extra(false)
      if (this.#loss.kind === "logprobs" && this.#loss.gather !== undefined && split) extra(true)
      const known = knownSpans(batch, [])
      const { outputs, tape } = recordedOutputs(this.#model, batch, wanted, { policy, dropout, known })
      engine.scope(() =>
        tape.backward(
          [outputs.logprobs, outputs.values].flatMap((tensor) =>
            tensor === undefined ? [] : [{ tensor, gradient: engine.zeros(tensor.shape) }],
          ),
        ),
      )
      disposeOutputs(outputs)
    }
    const forget = this.#backend.save()
    for (const batch of batches) {
      pass(batch)
      // The update takes them.
      if (!split) this.#model.clearGradients()
    }
    const prompts = Array.from({ length: kept.prompts }, () => keptRows(this.#model, new Int32Array(kept.rows))!)
    this.#backend.restart()
    pass(
      kept.prompts === 0
        ? batches[0]!
        : buildMicroBatch(
            units.map((unit, i) => {
              const known = kept.taken === false ? undefined : prompts[i]
              return known === undefined ? unit : { ...unit, prefix: { known, from: 0, rows: kept.rows } }
            }),
          ),
    )
    const reading = this.#backend.reading()
    for (const known of prompts) known[Symbol.dispose]()
    this.#model.clearGradients()
    forget()
    return reading
  }

  /** Bytes of a kept prompt of `rows` tokens. */
  keptBytes(rows: number): number {
    using known = keptRows(this.#model, new Int32Array(rows))
    return known?.bytes ?? 0
  }

  /** Largest number of live bytes while `work` runs on the model, standing memory included. */
  rehearse(work: (model: CausalLM, teacher: CausalLM | undefined) => void): number {
    this.#backend.restart()
    this.#model.engine.noGrad(() => work(this.#model, this.#teacher))
    return this.#backend.reading().peakBytes
  }

  [Symbol.dispose](): void {
    this.#reference?.[Symbol.dispose]()
    this.#teacher?.[Symbol.dispose]()
    this.#optimizer[Symbol.dispose]()
    this.#model[Symbol.dispose]()
  }
}
