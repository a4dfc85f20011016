import { readFileSync } from "node:fs"
import { join } from "node:path"
import { SlothError } from "@sloth/core"
import { fingerprintFiles, loadPeftAdapter, openModelFiles, readSafetensors, SCORE_WEIGHT } from "@sloth/model"
import type { CausalLM, LoraConfig, ModelFiles, Tokenizer } from "@sloth/model"
import type { SlothContext } from "./context.ts"
import { precisionNote } from "./precision-note.ts"
import { NANO, resolveModel, type ResolvedModel, type ResolveOptions } from "./resolve-model.ts"

/** Options of `sloth.open`. */
export interface OpenOptions extends ResolveOptions {
  /** Folder of a PEFT adapter to put on the model, in place of the one that a run folder brings. */
  readonly adapter?: string
  /** Makes the adapter's tensors trainable. */
  readonly trainable?: boolean
  /** Folder of the adapter that passes with adapters off are made with: what a run started from. The base model alone when absent. */
  readonly referenceAdapter?: string
}

/** A model in memory with its tokenizer and where it came from; dispose of it when done. */
export class OpenedModel implements Disposable {
  readonly source: ResolvedModel
  readonly files: ModelFiles
  readonly model: CausalLM
  /** Settings of the LoRA on it, if there is one. */
  readonly lora: LoraConfig | undefined
  readonly #release: (self: OpenedModel) => void
  #disposed = false

  constructor(
    source: ResolvedModel,
    files: ModelFiles,
    model: CausalLM,
    lora: LoraConfig | undefined,
    release: (self: OpenedModel) => void = () => undefined,
  ) {
    this.source = source
    this.files = files
    this.model = model
    this.lora = lora
    this.#release = release
  }

  get tokenizer(): Tokenizer {
    return this.files.tokenizer
  }

  /** Frees the model's memory; disposing twice is harmless. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.model[Symbol.dispose]()
    this.#release(this)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Replaces weights by those that a full fine-tuning wrote, f32. */
const replaceWeights = (model: CausalLM, folder: string): void => {
  const path = join(folder, "model.safetensors")
  const bytes = readFileSync(path)
  for (const entry of readSafetensors(path).tensors) {
    if (entry.name === SCORE_WEIGHT) {
      const head = bytes.subarray(entry.offset, entry.offset + entry.bytes)
      model.addScoreHead(0, new Float32Array(Uint8Array.from(head).buffer), false)
      continue
    }
    const ref = model.weights.get(entry.name)
    if (ref === undefined)
      throw new SlothError("SLOTH_MODEL_WEIGHT_UNKNOWN", {
        what: `${path} holds ${entry.name}, which the model does not have.`,
        next: "Use the base model that the run trained.",
        fields: { path, weight: entry.name },
      })
    const own = model.engine.unscoped(ref.shape)
    own.write(bytes.subarray(entry.offset, entry.offset + entry.bytes))
    ref.tensor.dispose()
    ref.tensor = own
  }
}

/**
 * Reads the headers of a resolved model; building it puts the weights of a fully fine-tuned run in place.
 * Errors: those of `openModelFiles`; SLOTH_RUN_INPUT_CHANGED when the run's base model has changed.
 */
export const openFiles = async (context: SlothContext, source: ResolvedModel): Promise<ModelFiles> => {
  const found = await openModelFiles(source.path, context.families)
  // The folder of a downloaded model is named by its commit, that of nano by its place in a package.
  const known = source.base === NANO || source.pinned.startsWith(`${source.base}@`)
  const files = known ? { ...found, name: source.base } : found
  const { weights } = source
  if (weights === undefined) return files
  const text = readFileSync(join(weights, "weights.json"), "utf8")
  const info = JSON.parse(text) as { readonly fingerprint?: string }
  if (info.fingerprint !== files.fingerprint)
    throw new SlothError("SLOTH_RUN_INPUT_CHANGED", {
      what: `The weights in ${weights} belong to another base model.`,
      why: `${files.path} has changed since they were trained.`,
      next: "Restore the base model.",
      fields: { path: weights, was: info.fingerprint, now: files.fingerprint },
    })
  return {
    ...files,
    fingerprint: fingerprintFiles([join(weights, "model.safetensors")]),
    build: (engine) => {
      const model = files.build(engine)
      try {
        replaceWeights(model, weights)
        return model
      } catch (error) {
        model[Symbol.dispose]()
        throw error
      }
    },
  }
}

/** Models that an instance has open, so that closing it frees them before the engine. */
export class OpenModels {
  readonly #open = new Set<OpenedModel>()

  /** Opens a model on the shared engine. Errors: those of `resolveModel`, `openModelFiles` and `loadPeftAdapter`. */
  async open(context: SlothContext, spec: string, options: OpenOptions = {}): Promise<OpenedModel> {
    const source = await resolveModel(context, spec, options)
    const files = await openFiles(context, source)
    const engine = await context.engine()
    options.signal?.throwIfAborted()
    const model = files.build(engine)
    try {
      const adapter = options.adapter ?? source.adapter
      if (options.referenceAdapter !== undefined) {
        loadPeftAdapter(model, options.referenceAdapter)
        model.keepAsReference()
      }
      const loaded =
        adapter === undefined ? undefined : loadPeftAdapter(model, adapter, { trainable: options.trainable === true })
      const note = precisionNote(model)
      if (note?.partial === true) context.logger.warn("SLOTH_PRECISION_PARTIAL", note.text)
      else if (note !== undefined) context.logger.info(note.text)
      return this.#adopt(new OpenedModel(source, files, model, loaded?.config, (self) => this.#open.delete(self)))
    } catch (error) {
      model[Symbol.dispose]()
      throw error
    }
  }

  /** Wraps a model that training handed over; `release` runs after it was disposed of. */
  wrap(
    source: ResolvedModel,
    files: ModelFiles,
    model: CausalLM,
    lora: LoraConfig | undefined,
    release: () => void,
  ): OpenedModel {
    return this.#adopt(
      new OpenedModel(source, files, model, lora, (self) => {
        this.#open.delete(self)
        release()
      }),
    )
  }

  #adopt(opened: OpenedModel): OpenedModel {
    this.#open.add(opened)
    return opened
  }

  /** Frees everything that is still open. */
  dispose(): void {
    for (const model of this.#open) model.dispose()
  }
}
