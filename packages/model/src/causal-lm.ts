import { SlothError } from "@sloth/core"
import {
  gatherRows,
  weightFormat,
  type Engine,
  type ForwardContext,
  type Linear,
  type ModuleBuilder,
  type Tensor,
  type WeightRef,
} from "@sloth/tensor"
import type { Head, ModelBody, ModelFamily, ModelShape } from "./family.ts"

/** A trainable tensor with the name it has in files. */
export interface Trainable {
  /** PEFT name for adapter tensors, Hugging Face name for weights. */
  readonly name: string
  readonly tensor: Tensor
  /** Adapter tensors, weights of the model itself (full fine-tuning, `modulesToSave`), or the score head. */
  readonly group: "adapter" | "weights" | "head"
  /** True for lora_B tensors, whose learning rate LoRA+ may scale. */
  readonly outer: boolean
  /** False for norms and biases, which weight decay leaves alone. */
  readonly decay: boolean
}

/** Name of the score head in files, as transformers' sequence classifiers have it. */
export const SCORE_WEIGHT = "score.weight"

// Far from the streams of adapters, which count layers.
const SCORE_STREAM = 1_000_003

/** A causal language model on an engine: modules of one family, adapters attached by name, weights shared where the model ties them. */
export class CausalLM<C extends ModelShape = ModelShape> implements Disposable {
  readonly family: ModelFamily<C>
  readonly config: C
  readonly engine: Engine
  readonly builder: ModuleBuilder
  readonly #body: ModelBody
  #scoreHead: { tensor: Tensor } | undefined
  /** Weights trained themselves, by name. */
  readonly #trainedWeights = new Set<WeightRef>()

  constructor(family: ModelFamily<C>, config: C, builder: ModuleBuilder) {
    this.family = family
    this.config = config
    this.engine = builder.engine
    this.builder = builder
    this.#body = family.build(config, builder)
  }

  /** Token ids i32 [tokens] to final hidden states [tokens, hidden], or of the rows in `ctx.read` alone [read, hidden]. */
  hidden(ctx: ForwardContext, tokens: Tensor): Tensor {
    const hidden = this.#body.forward(ctx, tokens)
    // A family need not know of ctx.read; where it does, its result has as many rows already.
    return ctx.read === undefined || hidden.shape[0] === ctx.read.rows.size ? hidden : gatherRows(hidden, ctx.read.rows)
  }

  get head(): Head {
    return this.#body.head
  }

  get hasScoreHead(): boolean {
    return this.#scoreHead !== undefined
  }

  /** The score head: a linear layer f32 [1, hidden] on final hidden states, for reward and value models. Errors: SLOTH_MODEL_NO_SCORE. */
  get scoreHead(): { readonly tensor: Tensor } {
    if (this.#scoreHead !== undefined) return this.#scoreHead
    throw new SlothError("SLOTH_MODEL_NO_SCORE", {
      what: "The model has no score head.",
      why: "Only reward and value models have one.",
      next: "Train one with the method reward, or load the adapter of one.",
    })
  }

  /**
   * Gives the model a trainable score head, drawn from a normal distribution of deviation 0.02 by the seed, or with `values` f32 [hidden]. Without a bias, as the `score`
   * layer of sequence classifiers in transformers is.
   */
  addScoreHead(seed: number, values?: Float32Array, trainable = true): void {
    const hidden = this.head.weight.shape.at(-1)!
    const tensor = this.engine.unscoped([1, hidden])
    if (values !== undefined) tensor.write(values)
    else this.engine.backend.kernels.randomNormal(tensor.handle, 0, 0.02, hidden, seed, SCORE_STREAM)
    this.#scoreHead?.tensor.dispose()
    this.#scoreHead = { tensor: trainable ? this.engine.parameter(tensor) : tensor }
  }

  /** Makes the score head that the model came with trainable. */
  trainScoreHead(): void {
    const { tensor } = this.scoreHead
    if (!tensor.requiresGrad) this.#scoreHead = { tensor: this.engine.parameter(tensor) }
  }

  get cache(): ModelBody["cache"] {
    return this.#body.cache
  }

  /** Linear layers by module path. */
  get linears(): ReadonlyMap<string, Linear> {
    return this.builder.linears
  }

  /** Weights by Hugging Face name. */
  get weights(): ReadonlyMap<string, WeightRef> {
    return this.builder.weights
  }

  /** Number of weights of the model, adapters not counted. */
  get parameterCount(): number {
    let n = 0
    for (const ref of this.weights.values()) n += ref.shape.reduce((a, b) => a * b, 1)
    return n
  }

  /** Replaces a weight by a trainable f32 copy. */
  trainWeight(name: string): void {
    const ref = this.weights.get(name)
    if (ref === undefined)
      throw new SlothError("SLOTH_MODEL_WEIGHT_UNKNOWN", {
        what: `The model has no weight named "${name}".`,
        next: `Weights look like: ${[...this.weights.keys()].slice(0, 4).join(", ")}.`,
        fields: { name },
      })
    if (this.#trainedWeights.has(ref)) return
    const old = ref.tensor
    const copy = this.engine.unscoped(ref.shape)
    if (old.dtype === "f32") this.engine.backend.kernels.copy(copy.handle, old.handle, copy.size * 4)
    else {
      const cols = ref.shape.at(-1)!
      this.engine.backend.kernels.dequantize(
        copy.handle,
        old.handle,
        weightFormat(old.dtype).code,
        copy.size / cols,
        cols,
      )
    }
    old.dispose()
    ref.tensor = this.engine.parameter(copy)
    this.#trainedWeights.add(ref)
  }

  /** Full fine-tuning: every weight becomes trainable. */
  trainAllWeights(): void {
    for (const name of this.weights.keys()) this.trainWeight(name)
  }

  /** True when this weight trains itself. */
  trainsWeight(ref: WeightRef): boolean {
    return this.#trainedWeights.has(ref)
  }

  /** All trainable tensors in a fixed order: adapters by layer, then weights. */
  trainables(): Trainable[] {
    const list: Trainable[] = []
    for (const [path, layer] of this.linears)
      for (const [suffix, tensor] of Object.entries(layer.adapter?.tensors ?? {}))
        if (tensor.requiresGrad)
          list.push({
            name: `base_model.model.${path}.${suffix}`,
            tensor,
            group: "adapter",
            outer: suffix.startsWith("lora_B"),
            decay: true,
          })
    for (const ref of this.#trainedWeights)
      list.push({ name: ref.name, tensor: ref.tensor, group: "weights", outer: false, decay: ref.shape.length > 1 })
    const score = this.#scoreHead?.tensor
    if (score?.requiresGrad === true)
      list.push({ name: SCORE_WEIGHT, tensor: score, group: "head", outer: false, decay: true })
    return list
  }

  /**
   * What the adapters are now becomes what passes with adapters off are made with; fresh adapters can then be attached. A method that compares with the model that a run
   * began with needs it.
   */
  keepAsReference(): void {
    this.dropReference()
    for (const layer of this.linears.values()) {
      layer.reference = layer.adapter
      layer.adapter = undefined
    }
  }

  /** Passes with adapters off are those of the base model again. */
  dropReference(): void {
    for (const layer of this.linears.values()) {
      for (const tensor of Object.values(layer.reference?.tensors ?? {})) tensor.dispose()
      layer.reference = undefined
    }
  }

  /** Frees gradients of all trainable tensors. */
  clearGradients(): void {
    for (const { tensor } of this.trainables()) tensor.slot?.clear()
  }

  [Symbol.dispose](): void {
    this.clearGradients()
    this.dropReference()
    for (const layer of this.linears.values()) {
      for (const tensor of Object.values(layer.adapter?.tensors ?? {})) tensor.dispose()
      layer.adapter = undefined
    }
    this.#scoreHead?.tensor.dispose()
    this.#scoreHead = undefined
    this.builder[Symbol.dispose]()
  }
}
