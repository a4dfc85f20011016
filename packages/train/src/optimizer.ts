import type { CausalLM, Trainable } from "@sloth/model"
import type { Engine, Tensor } from "@sloth/tensor"
import type { TrainConfig } from "./config.ts"

/** A trainable tensor with its own settings. */
export interface OptimizerParameter {
  readonly name: string
  readonly tensor: Tensor
  /** Learning rate at the top of the schedule. */
  readonly learningRate: number
  readonly weightDecay: number
}

/** The settings of AdamW. */
export type OptimizerConfig = Pick<
  TrainConfig,
  | "optimizer"
  | "learningRate"
  | "weightDecay"
  | "beta1"
  | "beta2"
  | "epsilon"
  | "loraPlusRatio"
  | "embeddingLearningRate"
>

/** Tensors below this many elements keep 32-bit states with `adamw8bit`. Source: bitsandbytes, `min_8bit_size`. */
export const SMALLEST_8BIT = 4096

/** Elements that share a scale of the 8-bit states. */
const BLOCK = 256

const isEmbedding = (model: CausalLM, name: string): boolean =>
  name === model.head.weight.name || /(^|\.)(embed_tokens|lm_head)\.weight$/.test(name)

/**
 * Parameter groups: LoRA's B matrices learn `loraPlusRatio` times as fast (LoRA+, Hayou et al. 2024), embedding tables and output layers at
 * `embeddingLearningRate`; norms and biases do not decay.
 */
export const parameterGroups = (model: CausalLM, config: OptimizerConfig): OptimizerParameter[] =>
  model.trainables().map((t: Trainable) => ({
    name: t.name,
    tensor: t.tensor,
    learningRate:
      t.group === "adapter"
        ? config.learningRate * (t.outer ? config.loraPlusRatio : 1)
        : isEmbedding(model, t.name)
          ? (config.embeddingLearningRate ?? config.learningRate)
          : config.learningRate,
    weightDecay: t.decay ? config.weightDecay : 0,
  }))

type State =
  | { readonly bits: 32; readonly m: Tensor; readonly v: Tensor }
  | { readonly bits: 8; readonly m8: Tensor; readonly v8: Tensor; readonly mAbs: Tensor; readonly vAbs: Tensor }

/** AdamW over all trainable tensors of a model, states in 32 or 8 bits. Source: Loshchilov & Hutter 2019; 8 bits: Dettmers et al. 2022. */
export class AdamW implements Disposable {
  readonly parameters: readonly OptimizerParameter[]
  readonly #engine: Engine
  readonly #config: OptimizerConfig
  readonly #states: readonly State[]

  constructor(engine: Engine, parameters: readonly OptimizerParameter[], config: OptimizerConfig) {
    this.#engine = engine
    this.#config = config
    this.parameters = parameters
    const zeros = (n: number, dtype: "f32" | "u8") => engine.keep(engine.zeros([n], dtype))
    this.#states = parameters.map(({ tensor: { size } }): State => {
      if (config.optimizer === "adamw" || size < SMALLEST_8BIT)
        return { bits: 32, m: zeros(size, "f32"), v: zeros(size, "f32") }
      const blocks = Math.ceil(size / BLOCK)
      return {
        bits: 8,
        m8: zeros(size, "u8"),
        v8: zeros(size, "u8"),
        mAbs: zeros(blocks, "f32"),
        vAbs: zeros(blocks, "f32"),
      }
    })
  }

  /** Bytes of all states. */
  get bytes(): number {
    let n = 0
    for (const { tensor } of this.states().values()) n += tensor.storage.bytes
    return n
  }

  /**
   * Enqueues one update with the gathered gradients, then frees them. `step` counts from 1; `factor` is the schedule's; `gradScale` multiplies the gradients (clipping).
   * A tensor that no gradient reached is left as it is, its states included.
   */
  step(step: number, factor: number, gradScale: number): void {
    const { kernels } = this.#engine.backend
    const { beta1, beta2, epsilon } = this.#config
    for (const [i, { tensor, learningRate, weightDecay }] of this.parameters.entries()) {
      const g = tensor.grad
      if (g === undefined) continue
      const s = this.#states[i]!
      const lr = learningRate * factor
      if (s.bits === 32)
        kernels.adamw(
          tensor.handle,
          g.handle,
          s.m.handle,
          s.v.handle,
          tensor.size,
          lr,
          beta1,
          beta2,
          epsilon,
          weightDecay,
          step,
          gradScale,
        )
      else
        kernels.adamw8bit(
          tensor.handle,
          g.handle,
          s.m8.handle,
          s.v8.handle,
          s.mAbs.handle,
          s.vAbs.handle,
          tensor.size,
          lr,
          beta1,
          beta2,
          epsilon,
          weightDecay,
          step,
          gradScale,
        )
      tensor.slot?.clear()
    }
  }

  /** State tensors by name, such as "m.<parameter>" and "v8.<parameter>", with the type a safetensors file gives them. */
  states(): Map<string, { readonly tensor: Tensor; readonly dtype: "F32" | "U8" }> {
    const out = new Map<string, { tensor: Tensor; dtype: "F32" | "U8" }>()
    for (const [i, { name }] of this.parameters.entries()) {
      const s = this.#states[i]!
      const parts = s.bits === 32 ? { m: s.m, v: s.v } : { m8: s.m8, v8: s.v8, mAbs: s.mAbs, vAbs: s.vAbs }
      for (const [part, tensor] of Object.entries(parts))
        out.set(`${part}.${name}`, { tensor, dtype: tensor.dtype === "u8" ? "U8" : "F32" })
    }
    return out
  }

  /** Frees all states. */
  [Symbol.dispose](): void {
    for (const { tensor } of this.states().values()) tensor.dispose()
  }
}

/** Factor that brings gradients of global L2 norm `norm` down to `maxNorm`; 0 switches clipping off. Source: torch 2, `clip_grad_norm_`. */
export const clipFactor = (norm: number, maxNorm: number): number =>
  maxNorm === 0 ? 1 : Math.min(1, maxNorm / (norm + 1e-6))
