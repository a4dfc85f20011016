import { SlothError } from "@sloth/core"
import { linear, type ForwardContext, type Linear, type LinearAdapter, type LowRank, type Tensor } from "@sloth/tensor"
import type { CausalLM } from "./causal-lm.ts"

/** Settings of a LoRA. Source: Hu et al. 2021; rsLoRA: Kalajdzievski 2023; names as PEFT 0.17 in the documented table. */
export interface LoraConfig {
  /** Width of the low-rank product. */
  readonly rank: number
  /** Numerator of the scale. */
  readonly alpha: number
  /** Probability of dropping an input of A while training. */
  readonly dropout: number
  /** "all-linear", names such as ["q_proj", "v_proj"] (the end of a module path), or a regular expression over whole module paths, written "/.../". */
  readonly targets: string | readonly string[]
  /** Only these layers; all when absent. */
  readonly layers?: readonly number[]
  /** Scale alpha / sqrt(rank) instead of alpha / rank. */
  readonly rankStabilized: boolean
  /** Modules that are trained and saved whole, such as ["embed_tokens", "lm_head"]. */
  readonly modulesToSave: readonly string[]
}

/** The defaults of `sloth train`. */
export const DEFAULT_LORA: LoraConfig = {
  rank: 16,
  alpha: 32,
  dropout: 0,
  targets: "all-linear",
  rankStabilized: false,
  modulesToSave: [],
}

/** A low-rank adapter on one linear layer: A [rank, in], B [out, rank], f32. */
export class Lora implements LinearAdapter {
  readonly kind = "lora"
  readonly a: Tensor
  readonly b: Tensor
  readonly scale: number
  readonly dropout: number
  /** Number of the layer among the adapted ones: it addresses the random bits of dropout. */
  readonly stream: number

  constructor(a: Tensor, b: Tensor, scale: number, dropout: number, stream: number) {
    this.a = a
    this.b = b
    this.scale = scale
    this.dropout = dropout
    this.stream = stream
  }

  get tensors(): Readonly<Record<string, Tensor>> {
    return { "lora_A.weight": this.a, "lora_B.weight": this.b }
  }

  forward(ctx: ForwardContext, layer: Linear, x: Tensor): Tensor {
    return linear(x, layer.weight.tensor, layer.bias?.tensor, this.#product(ctx))
  }

  lowRank(ctx: ForwardContext): LowRank | undefined {
    const product = this.#product(ctx)
    return product.dropout === undefined ? product : undefined
  }

  #product(ctx: ForwardContext): LowRank {
    const dropout =
      ctx.dropout !== undefined && this.dropout > 0
        ? { ...ctx.dropout, p: this.dropout, stream: this.stream, first: ctx.dropout.row ?? 0 }
        : undefined
    return { a: this.a, b: this.b, scale: this.scale, dropout }
  }
}

/** alpha / rank, or alpha / sqrt(rank) when rank-stabilized. */
export const loraScale = (config: Pick<LoraConfig, "rank" | "alpha" | "rankStabilized">): number =>
  config.alpha / (config.rankStabilized ? Math.sqrt(config.rank) : config.rank)

const layerOf = (path: string): number | undefined => {
  const m = /\.layers\.(\d+)\./.exec(`${path}.`)
  return m ? Number(m[1]) : undefined
}

/**
 * Module paths a LoRA of this configuration attaches to, in model order. The output layer is never one of "all-linear".
 * Errors: SLOTH_ADAPTER_TARGETS when a target matches nothing (lists what exists), SLOTH_ADAPTER_RANK when the rank exceeds a layer.
 */
export const loraTargets = (model: CausalLM, config: Pick<LoraConfig, "rank" | "targets" | "layers">): string[] => {
  const outputLayer = model.head.weight.name.replace(/\.weight$/, "")
  const paths = [...model.linears.keys()].filter((p) => p !== outputLayer)
  const inLayers = (p: string) => config.layers === undefined || config.layers.includes(layerOf(p) ?? -1)
  const names = [...new Set(paths.map((p) => p.split(".").at(-1)!))]
  const nothing = (target: string): SlothError =>
    new SlothError("SLOTH_ADAPTER_TARGETS", {
      what: `The adapter target "${target}" matches no linear layer of the model${config.layers === undefined ? "" : " in the layers given"}.`,
      next: `Targets that exist: ${names.join(", ")}; or "all-linear". Train embed_tokens or lm_head with modulesToSave.`,
      fields: { target, available: names, layers: config.layers },
    })
  let matched: string[]
  if (config.targets === "all-linear") {
    matched = paths.filter(inLayers)
    if (matched.length === 0) throw nothing("all-linear")
  } else {
    const targets = typeof config.targets === "string" ? [config.targets] : config.targets
    if (targets.length === 0) throw nothing("")
    const tests = targets.map((t) => {
      const m = /^\/(.*)\/$/s.exec(t)
      let test: (p: string) => boolean
      if (m === null) test = (p) => p === t || p.endsWith(`.${t}`)
      else {
        let re: RegExp
        try {
          re = new RegExp(`^(?:${m[1]})$`)
        } catch (cause) {
          throw new SlothError("SLOTH_ADAPTER_TARGETS", {
            what: `The adapter target ${t} is not a regular expression.`,
            why: String((cause as Error).message),
            fields: { target: t },
            cause,
          })
        }
        test = (p) => re.test(p)
      }
      if (!paths.some((p) => test(p) && inLayers(p))) throw nothing(t)
      return test
    })
    matched = paths.filter((p) => inLayers(p) && tests.some((test) => test(p)))
  }
  for (const path of matched) {
    const layer = model.linears.get(path)!
    const most = Math.min(layer.inner, layer.out)
    if (!Number.isInteger(config.rank) || config.rank < 1 || config.rank > most)
      throw new SlothError("SLOTH_ADAPTER_RANK", {
        what: `Rank ${config.rank} does not fit ${path}, a layer of ${layer.out} by ${layer.inner}.`,
        why: "The rank of a product cannot exceed the smaller side.",
        next: `Use a whole rank from 1 to ${most}, or leave this layer out of the targets.`,
        fields: { rank: config.rank, layer: path, most },
      })
  }
  return matched
}

/** Names of weights that `modulesToSave` entries mean. Errors: SLOTH_ADAPTER_TARGETS when one matches nothing. */
export const savedModules = (model: CausalLM, modules: readonly string[]): string[] => {
  const found = new Set<string>()
  for (const module of modules) {
    const names = [...model.weights.keys()].filter((n) => {
      const path = n.replace(/\.(weight|bias)$/, "")
      return path === module || path.endsWith(`.${module}`)
    })
    // A tied model has no lm_head of its own: training it means training the table both share.
    if (names.length === 0 && module === "lm_head" && model.config.tied) names.push(model.head.weight.name)
    if (names.length === 0)
      throw new SlothError("SLOTH_ADAPTER_TARGETS", {
        what: `modulesToSave names "${module}", which the model does not have.`,
        next: `Modules that exist: ${[...new Set([...model.weights.keys()].map((n) => n.split(".").at(-2)!))].join(", ")}.`,
        fields: { module },
      })
    for (const n of names) found.add(n)
  }
  return [...found]
}

/**
 * Attaches a fresh LoRA: A uniform in ±1/sqrt(in) (Kaiming with a = sqrt 5, as PEFT), B zero, so that the model's output does not change until it is trained.
 * The random bits depend on the seed and the order of layers alone.
 */
export const attachLora = (model: CausalLM, config: LoraConfig, seed: number): void => {
  const { engine } = model
  const targets = loraTargets(model, config)
  const whole = savedModules(model, config.modulesToSave)
  for (const [stream, path] of targets.entries()) {
    const layer = model.linears.get(path)!
    const a = engine.unscoped([config.rank, layer.inner])
    const b = engine.unscoped([layer.out, config.rank])
    const bound = 1 / Math.sqrt(layer.inner)
    engine.backend.kernels.randomUniform(a.handle, -bound, bound, a.size, seed, stream)
    engine.backend.kernels.fill(b.handle, 0, b.size)
    layer.adapter = new Lora(engine.parameter(a), engine.parameter(b), loraScale(config), config.dropout, stream)
  }
  for (const name of whole) model.trainWeight(name)
}
