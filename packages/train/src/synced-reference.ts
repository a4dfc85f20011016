import { SlothError } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import type { Tensor } from "@sloth/tensor"
import { disposeOutputs, frozenOutputs, hostOutputs, readOutputs } from "./forward.ts"
import type { MicroBatch } from "./micro-batch.ts"

/** How a reference follows the policy. */
export interface ReferenceSync {
  /** Share of the policy in the reference after a synchronisation; the rest is the reference as it was. */
  readonly mixup: number
  /** Optimizer steps between synchronisations. */
  readonly every: number
}

/** File of a checkpoint that holds the reference. */
export const REFERENCE_FILE = "reference.bin"

/**
 * A reference that follows the policy: a second state of the adapter. It begins as the base model, or as the adapter that the run starts from; after every `every` steps each of its factors becomes
 * mixup · policy + (1 - mixup) · reference. Passes of the reference run the one model with the state exchanged, which costs a copy of the adapter.
 * Source: Gorbatovski et al. 2024 (TR-DPO); TRL 1.13 mixes whole weights and takes no adapter.
 */
export class SyncedReference implements Disposable {
  readonly #model: CausalLM
  readonly #sync: ReferenceSync
  readonly #pairs: readonly { readonly policy: Tensor; readonly reference: Tensor; readonly spare: Tensor }[]

  /** For a model that is trainable already; with `fromPolicy` it begins as the policy is now. */
  constructor(model: CausalLM, sync: ReferenceSync, fromPolicy = false) {
    this.#model = model
    this.#sync = sync
    const { engine } = model
    const { kernels } = engine.backend
    this.#pairs = model.trainables().flatMap(({ tensor, group, outer }) => {
      if (group !== "adapter") return []
      const [reference, spare] = [engine.keep(engine.zeros(tensor.shape)), engine.keep(engine.zeros(tensor.shape))]
      // The inner factors begin as the policy's, so that mixed factors belong together; with the outer ones at 0 the adapter adds nothing.
      if (!outer || fromPolicy) kernels.copy(reference.handle, tensor.handle, tensor.size * 4)
      return [{ policy: tensor, reference, spare }]
    })
  }

  /** Bytes that it holds on the device. */
  get bytes(): number {
    return this.#pairs.reduce((n, { reference, spare }) => n + reference.storage.bytes + spare.storage.bytes, 0)
  }

  /** Enqueues passes of the reference: what `work` enqueues finds its factors in place of the policy's. */
  during<R>(work: () => R): R {
    const { kernels } = this.#model.engine.backend
    for (const { policy, reference, spare } of this.#pairs) {
      kernels.copy(spare.handle, policy.handle, policy.size * 4)
      kernels.copy(policy.handle, reference.handle, policy.size * 4)
    }
    try {
      return work()
    } finally {
      for (const { policy, spare } of this.#pairs) kernels.copy(policy.handle, spare.handle, policy.size * 4)
    }
  }

  /** Told that the update of a step is done; true when the reference has moved. */
  trained(step: number): boolean {
    const { mixup, every } = this.#sync
    if (step % every !== 0) return false
    const { kernels } = this.#model.engine.backend
    for (const { policy, reference } of this.#pairs) {
      kernels.scale(reference.handle, reference.handle, 1 - mixup, reference.size, 0)
      kernels.scale(reference.handle, policy.handle, mixup, reference.size, 1)
    }
    return true
  }

  /** The reference as bytes of a checkpoint. */
  async save(): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    for (const { reference } of this.#pairs)
      parts.push(await this.#model.engine.backend.memory.read(reference.handle, 0, reference.size * 4))
    return Buffer.concat(parts)
  }

  /** Takes back what {@link save} gave. Errors: SLOTH_RESUME_STATE. */
  restore(bytes: Uint8Array | undefined): void {
    const wanted = this.#pairs.reduce((n, { reference }) => n + reference.size * 4, 0)
    if (bytes?.length !== wanted)
      throw new SlothError("SLOTH_RESUME_STATE", {
        what:
          bytes === undefined
            ? "The checkpoint does not hold the reference that follows the policy."
            : `The reference of the checkpoint has ${bytes.length} bytes instead of ${wanted}.`,
        next: "Resume from another checkpoint, or start a new run.",
        fields: { bytes: bytes?.length ?? 0, wanted },
      })
    let at = 0
    for (const { reference } of this.#pairs) {
      const length = reference.size * 4
      reference.write(bytes.slice(at, at + length))
      at += length
    }
  }

  [Symbol.dispose](): void {
    for (const { reference, spare } of this.#pairs) {
      reference.dispose()
      spare.dispose()
    }
  }
}

/** Log-probs of the scored rows under the reference: one that follows the policy, or the base model, adapters off. */
export const readReferenceLogprobs = async (
  model: CausalLM,
  batch: MicroBatch,
  synced: SyncedReference | undefined,
  options: { readonly temperature?: number } = {},
): Promise<Float32Array> => {
  if (synced === undefined) return (await hostOutputs(model, batch, {}, { ...options, adapters: false })).logprobs!
  const outputs = synced.during(() => frozenOutputs(model, batch, {}, options))
  try {
    return (await readOutputs(outputs)).logprobs!
  } finally {
    disposeOutputs(outputs)
  }
}
