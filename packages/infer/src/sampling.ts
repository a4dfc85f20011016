import { SlothError } from "@sloth/core"

/** How a completion is sampled and when it ends. */
export interface SamplingOptions {
  /** Most tokens to generate. */
  readonly maxTokens: number
  /** 0 is greedy. */
  readonly temperature: number
  /** Only the k likeliest tokens; 0 means all. */
  readonly topK: number
  /** The smallest set of likeliest tokens whose probabilities reach this; 1 means all. */
  readonly topP: number
  /** Only tokens at least this fraction as likely as the likeliest; 0 means all. */
  readonly minP: number
  /** Divides positive and multiplies negative logits of tokens already seen (Keskar et al. 2019); 1 means none. */
  readonly repetitionPenalty: number
  /** Equal seeds give equal completions, whatever else is generated beside them. */
  readonly seed: number
  /** Texts that end the completion; they are not part of its text. */
  readonly stop: readonly string[]
  /** Token ids that end the completion, beside the model's own end tokens; they belong to its tokens, not to its text. */
  readonly stopTokens: readonly number[]
  /** True generates past the model's end tokens. */
  readonly ignoreEnd: boolean
}

/** Greedy, 256 tokens. */
export const DEFAULT_SAMPLING: SamplingOptions = {
  maxTokens: 256,
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: 0,
  stop: [],
  stopTokens: [],
  ignoreEnd: false,
}

const RANGES: readonly (readonly [keyof SamplingOptions, number, number, boolean])[] = [
  ["maxTokens", 1, 2 ** 31 - 1, true],
  ["temperature", 0, 100, false],
  ["topK", 0, 2 ** 31 - 1, true],
  ["topP", 0, 1, false],
  ["minP", 0, 1, false],
  ["repetitionPenalty", 0.01, 100, false],
  ["seed", 0, Number.MAX_SAFE_INTEGER, true],
]

/** Fills in defaults and checks ranges. Errors: SLOTH_GENERATE_OPTION, naming every wrong field. */
export const samplingOptions = (given: Partial<SamplingOptions> = {}): SamplingOptions => {
  const options = {
    ...DEFAULT_SAMPLING,
    ...Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined)),
  } as SamplingOptions
  const wrong = RANGES.flatMap(([key, low, high, whole]) => {
    const v = options[key] as number
    return typeof v !== "number" || !(v >= low && v <= high) || (whole && !Number.isInteger(v))
      ? [`${key} is ${String(v)}, but must be ${whole ? "a whole number " : ""}from ${low} to ${high}`]
      : []
  })
  if (wrong.length > 0)
    throw new SlothError("SLOTH_GENERATE_OPTION", { what: `${wrong.join("; ")}.`, fields: { options: given } })
  return options
}

/** The row of kernel parameters of a request, f32 [8]; see the `sample` kernel. */
export const samplingRow = (o: SamplingOptions): readonly number[] => [
  o.temperature,
  o.topK,
  o.topP,
  o.minP,
  o.repetitionPenalty,
  0,
  0,
  0,
]

/** The seed of one completion of a batch: a mix of the batch's seed, the prompt's position and the completion's index, so that no two completions draw the same numbers. */
export const requestSeed = (seed: number, prompt: number, index: number): number => {
  // SplitMix64's finalizer (Steele, Lea & Flood 2014) over the three numbers in turn; 53 bits of it fit a number exactly.
  let x = 0n
  for (const part of [seed, prompt, index]) {
    x = BigInt.asUintN(64, (x ^ BigInt(part)) + 0x9e3779b97f4a7c15n)
    x = BigInt.asUintN(64, (x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n)
    x = BigInt.asUintN(64, (x ^ (x >> 27n)) * 0x94d049bb133111ebn)
    x ^= x >> 31n
  }
  return Number(x >> 11n)
}

/** Cuts a streaming text at the first stop text; holds back what could still become one. */
export class StopFinder {
  readonly #stops: readonly string[]
  #held = ""
  /** True once a stop text was found. */
  found = false

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((s) => s !== "")
  }

  /** Adds text and returns the part that certainly stands before any stop text. */
  push(text: string): string {
    if (this.found) return ""
    this.#held += text
    let first = -1
    for (const stop of this.#stops) {
      const at = this.#held.indexOf(stop)
      if (at >= 0 && (first < 0 || at < first)) first = at
    }
    if (first >= 0) {
      this.found = true
      const out = this.#held.slice(0, first)
      this.#held = ""
      return out
    }
    let keep = 0
    for (const stop of this.#stops)
      for (let n = Math.min(stop.length - 1, this.#held.length); n > keep; n--)
        if (this.#held.endsWith(stop.slice(0, n))) {
          keep = n
          break
        }
    const out = this.#held.slice(0, this.#held.length - keep)
    this.#held = this.#held.slice(this.#held.length - keep)
    return out
  }

  /** What was held back, when the text is over. */
  end(): string {
    const out = this.#held
    this.#held = ""
    return this.found ? "" : out
  }
}
