import { SlothError } from "@sloth/core"

/** Rotary settings as `rope_parameters` / `rope_scaling` of a Hugging Face configuration give them. */
export interface RopeConfig {
  /** Base of the frequencies. */
  readonly theta: number
  /** Channels of a head that rotate. */
  readonly rotary: number
  /** Longest position the model was made for. */
  readonly maxPositions: number
  readonly scaling?: RopeScaling
}

/** The scaling rules of transformers 5 (`modeling_rope_utils`). */
export type RopeScaling =
  | { readonly type: "linear"; readonly factor: number }
  | { readonly type: "dynamic"; readonly factor: number }
  | {
      readonly type: "llama3"
      readonly factor: number
      readonly lowFreqFactor: number
      readonly highFreqFactor: number
      readonly originalMaxPositions: number
    }
  | {
      readonly type: "yarn"
      readonly factor: number
      readonly originalMaxPositions: number
      readonly betaFast?: number
      readonly betaSlow?: number
      readonly attentionFactor?: number
      readonly mscale?: number
      readonly mscaleAllDim?: number
      readonly truncate?: boolean
    }
  | {
      readonly type: "longrope"
      readonly shortFactor: readonly number[]
      readonly longFactor: readonly number[]
      readonly originalMaxPositions: number
      readonly factor?: number
      readonly attentionFactor?: number
    }
  /** Factors a frequency as a GGUF file carries them (`rope_freqs.weight`): each frequency is divided by its factor. */
  | { readonly type: "factors"; readonly factors: readonly number[] }

/**
 * Inverse frequencies [rotary / 2] and the factor of cos and sin for texts of up to `length` tokens.
 * Sources: linear (Chen et al. 2023), dynamic NTK (bloc97 2023), llama3 (Llama 3.1), YaRN (Peng et al. 2023), LongRoPE (Ding et al. 2024), as transformers 5 combines them.
 */
export const ropeFrequencies = (config: RopeConfig, length: number): { inverse: Float64Array; factor: number } => {
  const { theta, rotary, scaling } = config
  const half = rotary / 2
  const base = (t: number) => Float64Array.from({ length: half }, (_, i) => 1 / t ** ((2 * i) / rotary))
  if (scaling === undefined) return { inverse: base(theta), factor: 1 }
  switch (scaling.type) {
    case "linear":
      return { inverse: base(theta).map((f) => f / scaling.factor), factor: 1 }
    case "dynamic": {
      const n = Math.max(length, config.maxPositions)
      const stretched =
        theta * ((scaling.factor * n) / config.maxPositions - (scaling.factor - 1)) ** (rotary / (rotary - 2))
      return { inverse: base(stretched), factor: 1 }
    }
    case "llama3": {
      const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: original } = scaling
      return {
        inverse: base(theta).map((f) => {
          const wave = (2 * Math.PI) / f
          if (wave < original / high) return f
          if (wave > original / low) return f / factor
          const smooth = (original / wave - low) / (high - low)
          return ((1 - smooth) * f) / factor + smooth * f
        }),
        factor: 1,
      }
    }
    case "yarn": {
      const {
        factor,
        originalMaxPositions: original,
        betaFast = 32,
        betaSlow = 1,
        mscale,
        mscaleAllDim,
        truncate = true,
      } = scaling
      const magnitude = (s: number, m: number) => (s <= 1 ? 1 : 0.1 * m * Math.log(s) + 1)
      const attention =
        scaling.attentionFactor ??
        (mscale && mscaleAllDim ? magnitude(factor, mscale) / magnitude(factor, mscaleAllDim) : magnitude(factor, 1))
      // The channel at which a frequency turns `rotations` times within the original length.
      const channel = (rotations: number) =>
        (rotary * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta))
      let [low, high] = [channel(betaFast), channel(betaSlow)]
      if (truncate) [low, high] = [Math.floor(low), Math.ceil(high)]
      low = Math.max(low, 0)
      high = Math.min(high, rotary - 1)
      if (low === high) high += 0.001
      return {
        inverse: base(theta).map((f, i) => {
          const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)))
          return (f / factor) * ramp + f * (1 - ramp)
        }),
        factor: attention,
      }
    }
    case "longrope": {
      const { originalMaxPositions: original, shortFactor, longFactor } = scaling
      const factor = scaling.factor ?? config.maxPositions / original
      const attention =
        scaling.attentionFactor ?? (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original)))
      const stretch = length > original ? longFactor : shortFactor
      if (stretch.length !== half)
        throw new SlothError("SLOTH_ROPE_FACTORS", {
          what: `longrope lists ${stretch.length} factors, but ${rotary} rotary channels need ${half}.`,
          fields: { got: stretch.length, expected: half },
        })
      return { inverse: base(theta).map((f, i) => f / stretch[i]!), factor: attention }
    }
    case "factors":
      if (scaling.factors.length !== half)
        throw new SlothError("SLOTH_ROPE_FACTORS", {
          what: `The file lists ${scaling.factors.length} rope factors, but ${rotary} rotary channels need ${half}.`,
          fields: { got: scaling.factors.length, expected: half },
        })
      return { inverse: base(theta).map((f, i) => f / scaling.factors[i]!), factor: 1 }
  }
}

/** cos and sin tables [positions, rotary / 2] in f32; frequencies are rounded to f32 first, as PyTorch holds them. */
export const ropeTables = (
  config: RopeConfig,
  positions: number,
  length = positions,
): { cos: Float32Array; sin: Float32Array } => {
  const { inverse, factor } = ropeFrequencies(config, length)
  const half = inverse.length
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let i = 0; i < half; i++) {
    const f = Math.fround(inverse[i]!)
    for (let p = 0; p < positions; p++) {
      const angle = Math.fround(p * f)
      cos[p * half + i] = Math.cos(angle) * factor
      sin[p * half + i] = Math.sin(angle) * factor
    }
  }
  return { cos, sin }
}
