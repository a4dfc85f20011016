import { SlothError } from "@sloth/core"
import { packedContext, type CausalLM, type Tokenizer } from "@sloth/model"
import { gatherRows, linearLogprobs, SequenceLayout, weightFormat } from "@sloth/tensor"
import type { Verification } from "./contract.ts"

/** Log-probs of the tokens of some texts, and the likeliest next token at a few positions of each. */
export interface ModelOpinion {
  readonly logprobs: readonly Float32Array[]
  readonly likeliest: readonly Int32Array[]
}

/** What a model says about texts, one text at a time. */
export const opinionOf = async (model: CausalLM, texts: readonly (readonly number[])[]): Promise<ModelOpinion> => {
  const { engine, head } = model
  const logprobs: Float32Array[] = []
  const likeliest: Int32Array[] = []
  for (const text of texts) {
    const positions = Int32Array.from({ length: Math.min(8, text.length - 1) }, (_, i) =>
      Math.floor(((i + 1) * (text.length - 1)) / 8.001),
    )
    const made = engine.noGrad(() =>
      engine.scope(() => {
        const ctx = packedContext(engine, SequenceLayout.fromLengths([text.length - 1]))
        const hidden = model.hidden(ctx, engine.from(Int32Array.from(text.slice(0, -1)))) // [tokens - 1, hidden]
        const { logprobs: lp } = linearLogprobs(
          hidden,
          head.weight.tensor,
          engine.from(Int32Array.from(text.slice(1))),
          head,
        )
        const rows = gatherRows(hidden, engine.from(positions)) // [positions, hidden]
        const [vocab, width] = head.weight.shape as [number, number]
        const logits = engine.empty([positions.length, vocab])
        const { kernels } = engine.backend
        kernels.logits(
          logits.handle,
          rows.handle,
          head.weight.tensor.handle,
          weightFormat(head.weight.tensor.dtype).code,
          positions.length,
          vocab,
          width,
          head.softcap,
          head.logitScale,
        )
        const ids = engine.empty([positions.length], "i32")
        const ignored = engine.empty([positions.length])
        const greedy = engine.zeros([positions.length, 8])
        const rng = engine.zeros([positions.length, 4], "i32")
        // Temperature 0 picks the likeliest; the penalty column must be 1 to change nothing.
        greedy.write(
          Float32Array.from({ length: positions.length * 8 }, (_, i) => (i % 8 === 2 || i % 8 === 4 ? 1 : 0)),
        )
        kernels.sample(
          ids.handle,
          ignored.handle,
          logits.handle,
          positions.length,
          vocab,
          greedy.handle,
          rng.handle,
          0,
          0,
        )
        return { lp, ids }
      }),
    )
    const reading = Promise.all([made.lp.readFloats(), made.ids.read()])
    made.lp.dispose()
    made.ids.dispose()
    const [lp, ids] = await reading
    logprobs.push(lp.slice())
    likeliest.push((ids as Int32Array).slice())
  }
  return { logprobs, likeliest }
}

/** Largest relative error of a rounded weight: half a unit in the last of the significant bits (11 of f16, 8 of bfloat16), or half a step of 127 of a block's largest. */
const ROUNDING = { f16: 2 ** -11, bf16: 2 ** -8, q8_0: 1 / 254 } as const

/** What f16 files may differ by, in nats on a single token: the project's bar for 16-bit files. A tenth of it on average. */
const F16_LARGEST = 2e-2

/**
 * How close the log-probs of a file in each stored type must come to the model in memory, in nats. That the file holds the right weights is compared bit for bit; this is
 * about whether their rounding may cost so much. A change of log-probs is, to first order, linear in the relative errors of the weights, so the bound of each type is f16's
 * times the ratio of the two rounding errors: 8 for bfloat16.
 */
export const allowedDifference = (stored: string): Verification["allowed"] => {
  switch (stored) {
    case "f32":
      return {
        largest: 1e-3,
        mean: 1e-4,
        reason: "merging adds the low-rank product once in f32; only the order of sums differs",
      }
    case "f16":
      return { largest: F16_LARGEST, mean: F16_LARGEST / 10, reason: "f16 weights carry 11 significant bits" }
    case "bf16": {
      const coarser = ROUNDING.bf16 / ROUNDING.f16
      return {
        largest: F16_LARGEST * coarser,
        mean: (F16_LARGEST / 10) * coarser,
        reason: `bfloat16 weights carry 8 significant bits, f16 weights 11: rounding is ${coarser} times coarser`,
      }
    }
    default:
      return {
        largest: Number.POSITIVE_INFINITY,
        mean: 5e-2,
        reason:
          "8-bit blocks round each weight by up to 1/254 of the largest of 32; a single token may differ more than the mean",
      }
  }
}

/** Refuses a tokenizer that was not read back as it was written: ids of the first text. Errors: SLOTH_EXPORT_VERIFY. */
export const compareTokenizers = (
  path: string,
  ours: Tokenizer,
  written: Tokenizer,
  probe: readonly number[],
): void => {
  const text = ours.decode(probe).slice(0, 2000)
  if (written.encode(text).join() === ours.encode(text).join()) return
  throw new SlothError("SLOTH_EXPORT_VERIFY", {
    what: `The tokenizer written to ${path} gives other ids than the one in memory.`,
    next: "Please report this as a bug.",
    fields: { path },
  })
}

/** Compares two opinions. Errors: SLOTH_EXPORT_VERIFY when they differ by more than allowed. */
export const compareOpinions = (
  path: string,
  expected: ModelOpinion,
  got: ModelOpinion,
  allowed: Verification["allowed"],
  tensors?: number,
): Verification => {
  let largest = 0
  let sum = 0
  let tokens = 0
  let same = 0
  let positions = 0
  for (const [i, text] of expected.logprobs.entries()) {
    for (const [j, lp] of text.entries()) {
      const d = Math.abs(lp - got.logprobs[i]![j]!)
      largest = Math.max(largest, Number.isNaN(d) ? Number.POSITIVE_INFINITY : d)
      sum += d
      tokens++
    }
    for (const [j, id] of expected.likeliest[i]!.entries()) {
      positions++
      if (got.likeliest[i]![j] === id) same++
    }
  }
  const mean = sum / Math.max(1, tokens)
  const result: Verification = {
    tokens,
    largest,
    mean,
    agreement: same / Math.max(1, positions),
    ...(tensors === undefined ? {} : { tensors }),
    allowed,
  }
  if (!(largest <= allowed.largest && mean <= allowed.mean))
    throw new SlothError("SLOTH_EXPORT_VERIFY", {
      what: `${path} does not say what the model in memory says: log-probs differ by up to ${largest.toPrecision(3)} nats, ${mean.toPrecision(3)} on average.`,
      why: `Allowed are ${allowed.largest} and ${allowed.mean}: ${allowed.reason}.`,
      next:
        tensors !== undefined && allowed.largest > 1e-3
          ? "The file was removed. It held the weights as the format rounds them: this model needs a finer format, such as f32."
          : "The file was removed. Please report this as a bug.",
      fields: { path, ...result },
    })
  return result
}
