import type { Engine, Tensor } from "@sloth/tensor"
import { samplingRow, type SamplingOptions } from "../sampling.ts"

/** One token to draw. */
export interface SampleRow {
  readonly options: SamplingOptions
  /** Which token of its completion it is, from 0: the address of its random number. */
  readonly step: number
  /** Tokens before it that a repetition penalty applies to; only asked for where there is one. */
  history(): Iterable<number>
}

/** Draws a token for every row of logits [rows, vocab]; the log-probs are those of the untouched logits. */
export const sampleRows = (
  engine: Engine,
  logits: Tensor,
  wanted: readonly SampleRow[],
): { ids: Tensor; logp: Tensor } => {
  const [rows, vocab] = logits.shape as [number, number]
  const params = engine.from(Float32Array.from(wanted.flatMap((w) => samplingRow(w.options))), [rows, 8])
  const rng = engine.from(
    Int32Array.from(
      wanted.flatMap(({ options: { seed }, step }) => [(seed % 2 ** 32) | 0, Math.floor(seed / 2 ** 32), 0, step]),
    ),
    [rows, 4],
  )
  const histories = wanted.map((w) => (w.options.repetitionPenalty === 1 ? [] : [...new Set(w.history())]))
  const maxHistory = Math.max(...histories.map((h) => h.length))
  const history =
    maxHistory === 0
      ? undefined
      : engine.from(
          Int32Array.from(histories.flatMap((h) => [...h, ...Array<number>(maxHistory - h.length).fill(-1)])),
          [rows, maxHistory],
        )
  const ids = engine.empty([rows], "i32")
  const logp = engine.empty([rows])
  engine.backend.kernels.sample(
    ids.handle,
    logp.handle,
    logits.handle,
    rows,
    vocab,
    params.handle,
    rng.handle,
    history?.handle ?? 0,
    maxHistory,
  )
  return { ids, logp }
}
