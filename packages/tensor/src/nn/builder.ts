import type { Engine } from "../engine.ts"
import type { RopeConfig } from "../rope-tables.ts"
import type { Tensor } from "../tensor.ts"
import { Embedding, Linear, RmsNorm, Rotary, type WeightRef } from "./modules.ts"

/** Finds the tensor of a weight by its Hugging Face name and shape; it decides the type and whether the file is used in place. */
export interface WeightProvider {
  /** `vector` weights (norms, biases) come as f32; `matrix` weights in any weight format. Errors: coded, naming the weight. */
  weight(name: string, shape: readonly number[], kind: "matrix" | "vector"): Tensor
}

/** Makes modules for a model family and remembers them by name. */
export class ModuleBuilder implements Disposable {
  readonly engine: Engine
  readonly #provider: WeightProvider
  /** All weights by Hugging Face name. */
  readonly weights = new Map<string, WeightRef>()
  /** All linear layers by module path. */
  readonly linears = new Map<string, Linear>()
  readonly #rotaries: Rotary[] = []

  constructor(engine: Engine, provider: WeightProvider) {
    this.engine = engine
    this.#provider = provider
  }

  /** A weight by its full name; asking twice gives the same one. */
  weight(name: string, shape: readonly number[], kind: "matrix" | "vector"): WeightRef {
    let ref = this.weights.get(name)
    if (ref === undefined) {
      ref = { name, shape, tensor: this.engine.keep(this.#provider.weight(name, shape, kind)) }
      this.weights.set(name, ref)
    }
    return ref
  }

  /** A linear layer [out, in] named by its module path. */
  linear(name: string, inner: number, out: number, options: { bias?: boolean } = {}): Linear {
    const weight = this.weight(`${name}.weight`, [out, inner], "matrix")
    const bias = options.bias === true ? this.weight(`${name}.bias`, [out], "vector") : undefined
    const layer = new Linear(name, inner, out, weight, bias)
    this.linears.set(name, layer)
    return layer
  }

  embedding(name: string, vocab: number, hidden: number, scale = 1): Embedding {
    return new Embedding(name, this.weight(`${name}.weight`, [vocab, hidden], "matrix"), scale)
  }

  rmsNorm(name: string, size: number, eps: number, offset = 0): RmsNorm {
    return new RmsNorm(name, this.weight(`${name}.weight`, [size], "vector"), eps, offset)
  }

  rotary(config: RopeConfig): Rotary {
    const rotary = new Rotary(this.engine, config)
    this.#rotaries.push(rotary)
    return rotary
  }

  /** Frees all weights and tables. */
  [Symbol.dispose](): void {
    for (const ref of this.weights.values()) {
      ref.tensor.slot?.clear()
      ref.tensor.dispose()
    }
    for (const rotary of this.#rotaries) rotary[Symbol.dispose]()
  }
}
