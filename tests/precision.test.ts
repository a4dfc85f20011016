import { describe, expect, test } from "bun:test"
import { packedContext, type CausalLM } from "@sloth/model"
import { Engine, SequenceLayout, weightFormat } from "@sloth/tensor"
import { goldenJson } from "./support/golden.ts"
import { logprobsOf, openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "./support/smollm2.ts"
import { cpuBackend } from "./support/cpu.ts"

const probe = smollm2Path === undefined ? undefined : await cpuBackend({ threads: 1 })
const offered = probe?.device.precisions ?? []
probe?.[Symbol.dispose]()

/** Root of the mean square of the logits of a text around the mean of their row: how large the numbers are that a log-prob is a difference of. */
const logitSize = async (model: CausalLM, tokens: readonly number[]): Promise<number> => {
  const { engine } = model
  const [rows, vocab, hidden] = [tokens.length, model.config.vocab, model.config.hidden]
  const weight = model.head.weight.tensor
  const out = engine.unscoped([rows, vocab])
  engine.noGrad(() =>
    engine.scope(() => {
      const ctx = packedContext(engine, SequenceLayout.fromLengths([rows]))
      const h = model.hidden(ctx, engine.from(Int32Array.from(tokens)))
      const code = weightFormat(weight.dtype).code
      engine.backend.kernels.logits(out.handle, h.handle, weight.handle, code, rows, vocab, hidden, 0, 1)
    }),
  )
  const z = await out.readFloats()
  let squares = 0
  for (let r = 0; r < rows; r++) {
    const row = z.subarray(r * vocab, (r + 1) * vocab)
    const mean = row.reduce((a, b) => a + b, 0) / vocab
    squares += row.reduce((a, b) => a + (b - mean) ** 2, 0) / vocab
  }
  out.dispose()
  return Math.sqrt(squares / rows)
}

// Largest possible root-mean-square error of a product relative to the product. bf16: both operands are off by up to 2^-9, evenly spread, so 2^-9 / √3 each. int8: an
// activation is off by up to half a step of max|x| / 127, so max|x| / (127 · √12), and the largest of a block of 32 is at most √32 times the block's root mean square.
const ERRORS = { bf16: (Math.SQRT2 * 2 ** -9) / Math.sqrt(3), int8: Math.sqrt(32) / (127 * Math.sqrt(12)) } as const

for (const precision of ["bf16", "int8"] as const)
  describe.skipIf(smollm2Path === undefined || !offered.includes(precision))(`SmolLM2-135M in ${precision}`, () => {
    test("log-probs differ from those of transformers in f32 by the format's rounding", async () => {
      const golden = goldenJson<{ texts: { tokens: number[]; logprobs: (number | null)[] }[] }>(
        "smollm2",
        "logprobs.json",
      )
      const backend = (await cpuBackend({ precision }))!
      using engine = new Engine(backend)
      using model = (await openSmollm2()).build(engine)
      let [squares, count, largest] = [0, 0, 0]
      for (const { tokens, logprobs } of golden.texts.slice(0, 3))
        for (const [i, lp] of (await logprobsOf(model, tokens)).entries()) {
          const d = lp - logprobs[i + 1]!
          squares += d * d
          largest = Math.max(largest, Math.abs(d))
          count++
        }
      const rms = Math.sqrt(squares / count)
      // The errors of the products of 30 blocks and the output layer, each no larger than this of the stream that it goes into, add up as a random walk; a log-prob is
      // the difference of two sums of logits.
      const size = await logitSize(model, golden.texts[0]!.tokens)
      const bound = ERRORS[precision] * Math.sqrt(7 * 30 + 1) * Math.SQRT2 * size
      console.log(
        `${precision}: log-probs off by ${rms.toFixed(4)} nats in the root mean square, ${largest.toFixed(3)} at most; bound ${bound.toFixed(2)} (logits of ${size.toFixed(1)})`,
      )
      expect(rms).toBeLessThan(bound)
      // Were they equal, nothing would have been rounded.
      expect(rms).toBeGreaterThan(2 ** -14)
    }, 120_000)
  })

if (smollm2Path === undefined) console.log(`(skip) ${SMOLLM2_ABSENT}`)
else if (offered.length < 3)
  console.log(`(skip) this processor offers ${offered.join(", ") || "no native backend"} only`)
