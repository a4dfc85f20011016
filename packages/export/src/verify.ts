import { SlothError } from "@sloth/core"
import { packedContext, type CausalLM } from "@sloth/model"
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

/** How close a file of each stored type must come, in nats. */
export const allowedDifference = (stored: string): Verification["allowed"] => {
  switch (stored) {
    case "f32":
      return {
        largest: 1e-3,
        mean: 1e-4,
        reason: "merging adds the low-rank product once in f32; only the order of sums differs",
      }
    case "f16":
      return { largest: 2e-2, mean: 2e-3, reason: "16-bit weights carry 11 significant bits" }
    case "bf16":
      return { largest: 1.6e-1, mean: 1.6e-2, reason: "bfloat16 weights carry 8 significant bits, an eighth of f16's" }
    default:
      return {
        largest: Number.POSITIVE_INFINITY,
        mean: 5e-2,
        reason:
          "8-bit blocks round each weight by up to 1/254 of the largest of 32; a single token may differ more than the mean",
      }
  }
}

/** Compares two opinions. Errors: SLOTH_EXPORT_VERIFY when they differ by more than allowed. */
export const compareOpinions = (
  path: string,
  expected: ModelOpinion,
  got: ModelOpinion,
  allowed: Verification["allowed"],
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
  const result: Verification = { tokens, largest, mean, agreement: same / Math.max(1, positions), allowed }
  if (!(largest <= allowed.largest && mean <= allowed.mean))
    throw new SlothError("SLOTH_EXPORT_VERIFY", {
      what: `${path} does not say what the model in memory says: log-probs differ by up to ${largest.toPrecision(3)} nats, ${mean.toPrecision(3)} on average.`,
      why: `Allowed are ${allowed.largest} and ${allowed.mean}: ${allowed.reason}.`,
      next: "The file was removed. Choose a finer format; if this is f32 or f16, please report it as a bug.",
      fields: { path, ...result },
    })
  return result
}
