import { SlothError } from "@sloth/core"
import type { CausalLM, Tokenizer } from "@sloth/model"
import { DraftModel } from "./internal/draft-model.ts"
import { lookupTokens } from "./internal/prompt-lookup.ts"
import type { SamplingOptions } from "./sampling.ts"

/**
 * How following tokens are guessed, to be checked by the model several at a time.
 *
 * A guess never decides anything. The model draws every token from its own distribution with the random number of that token's position, as it does without
 * guesses; where its draw equals the guess, the row after it is already computed. So completions, their log-probs and their distribution are those of plain
 * generation, seed by seed (up to the rounding of kernels that choose their tiling by the number of rows). For a guess without spread this is the rejection rule
 * of Leviathan et al. 2023: it is accepted with probability p(guess). A draft model draws with the same random numbers, so that its draws coincide with the
 * model's where the two distributions agree.
 */
export type Speculation =
  | {
      /** Guesses what followed the last tokens when they stood in the text before (Saxena 2023, prompt lookup decoding). */
      readonly kind: "lookup"
      /** Most tokens guessed at once; 4 when absent. */
      readonly tokens?: number
      /** Longest run of last tokens that is looked for, 4 when absent; */
      readonly maxNgram?: number
      /** and the shortest, 2 when absent. */
      readonly minNgram?: number
    }
  | {
      /** Guesses what a smaller model with the same tokenizer would say. */
      readonly kind: "draft"
      readonly model: CausalLM
      readonly tokenizer: Tokenizer
      /** Most tokens guessed at once; 4 when absent. */
      readonly tokens?: number
    }

/** How good the guesses for a completion were. */
export interface SpeculationCounts {
  /** Tokens guessed. */
  readonly proposed: number
  /** Guesses that the model drew as well. */
  readonly accepted: number
}

/** A growing text, as guessers see it. */
export interface SpeculatedText {
  readonly prompt: readonly number[]
  readonly tokens: readonly number[]
  readonly options: SamplingOptions
}

/** Guesses for growing texts. */
export interface Speculator {
  /** Most tokens it guesses at once. */
  readonly most: number
  /** Up to `counts[i]` tokens that may follow text i. */
  propose(texts: readonly SpeculatedText[], counts: readonly number[]): Promise<readonly (readonly number[])[]>
  /** Forgets a text that is finished. */
  forget(text: SpeculatedText): void
  /** Gives its memory back; not while texts grow. */
  release(): void
}

const whole = (name: string, value: number, least: number, most: number): number => {
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new SlothError("SLOTH_GENERATE_OPTION", {
    what: `${name} of speculation is ${value}, but must be a whole number from ${least} to ${most}.`,
    fields: { [name]: value },
  })
}

/**
 * Makes the guesser. Errors: SLOTH_GENERATE_OPTION for numbers out of range, SLOTH_GENERATE_DRAFT_TOKENIZER when the draft model's tokens are not the model's.
 */
export const createSpeculator = (
  speculation: Speculation,
  model: CausalLM,
  tokenizer: Tokenizer,
  maxBatch: number,
): Speculator => {
  if (speculation.kind === "draft") {
    checkTokenizers(tokenizer, speculation.tokenizer)
    const most = whole("tokens", speculation.tokens ?? 4, 1, 64)
    return new DraftModel(speculation.model, most, model.config.vocab, maxBatch)
  }
  const most = whole("tokens", speculation.tokens ?? 4, 1, 64)
  const maxNgram = whole("maxNgram", speculation.maxNgram ?? 4, 1, 64)
  const minNgram = whole("minNgram", speculation.minNgram ?? Math.min(2, maxNgram), 1, maxNgram)
  return {
    most,
    propose: (texts, counts) =>
      Promise.resolve(
        texts.map(({ prompt, tokens }, i) => lookupTokens([...prompt, ...tokens], counts[i]!, minNgram, maxNgram)),
      ),
    forget: () => {},
    release: () => {},
  }
}

const checkTokenizers = (target: Tokenizer, draft: Tokenizer): void => {
  if (target === draft || (target.fingerprint !== undefined && target.fingerprint === draft.fingerprint)) return
  let different = target.vocabSize === draft.vocabSize ? undefined : Math.min(target.vocabSize, draft.vocabSize)
  for (let id = 0; id < Math.min(target.vocabSize, draft.vocabSize); id++)
    if (target.idToToken(id) !== draft.idToToken(id)) {
      different = id
      break
    }
  if (different === undefined) return
  throw new SlothError("SLOTH_GENERATE_DRAFT_TOKENIZER", {
    what: `The draft model has another tokenizer: token ${different} is ${JSON.stringify(target.idToToken(different) ?? null)} for the model and ${JSON.stringify(draft.idToToken(different) ?? null)} for the draft.`,
    why: "A draft guesses token ids, which must mean the same to both models.",
    next: "Take a smaller model of the same family, or speculate by lookup.",
    fields: { token: different, vocab: target.vocabSize, draftVocab: draft.vocabSize },
  })
}
