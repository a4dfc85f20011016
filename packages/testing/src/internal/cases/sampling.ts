import type { RequiredKernels } from "@sloth/core"

import { check } from "../assert.ts"
import { Data } from "../data.ts"
import { sumError } from "../tolerance.ts"
import type { KernelCase } from "../twin.ts"

/** temperature, topK, topP, minP, repetitionPenalty */
type Params = readonly [number, number, number, number, number]

const SETTINGS: readonly (readonly [label: string, params: Params])[] = [
  ["greedy", [0, 0, 1, 0, 1]],
  ["greedy with a penalty", [0, 0, 1, 0, 1.7]],
  ["plain", [1, 0, 1, 0, 1]],
  ["hot", [2.5, 0, 1, 0, 1]],
  ["top-k", [1, 5, 1, 0, 1]],
  ["top-k of one", [1, 1, 1, 0, 1]],
  ["top-p", [0.8, 0, 0.7, 0, 1]],
  ["top-p of almost nothing", [1, 0, 1e-6, 0, 1]],
  ["min-p", [1.3, 0, 1, 0.2, 1]],
  ["everything", [0.9, 20, 0.9, 0.05, 1.3]],
]

/** Cases of sampling. */
export const samplingCases: Record<keyof Pick<RequiredKernels, "sample">, KernelCase[]> = {
  sample: SETTINGS.flatMap(([label, params]) =>
    [
      [1, 1],
      [5, 33],
      [64, 123],
      [7, 5003],
    ].map(([rows, vocab]) => ({
      label: `${label}, ${rows} of ${vocab}`,
      async run(t) {
        const d = new Data(rows! + vocab! + label.length)
        const logits = d.floats(rows! * vocab!, 3)
        // Ties are broken by the lower id, also between the likeliest.
        if (vocab! > 10) for (let r = 0; r < rows!; r++) logits.fill(9, r * vocab! + 4, r * vocab! + 7)
        // One token far above a crowd that together is as likely: the draw walks deep into the crowd.
        if (vocab! > 1000)
          for (let r = 3; r < rows!; r++)
            for (let i = 0; i < vocab!; i++) logits[r * vocab! + i] = i === 9 ? 1 : logits[r * vocab! + i]! / 10 - 8
        const maxHistory = 6
        const history = d.integers(rows! * maxHistory, vocab!).map((id, i) => (i % maxHistory < 4 ? id : -1))
        // A repeated id counts once.
        history[1] = history[0]!
        const rng = Array.from({ length: rows! }, (_, r) => [1234 + r, -r, 3, 77 * r]).flat()
        const settings = Array.from({ length: rows! }, () => [...params, 0, 0, 0]).flat()
        const [ids, logp, source] = [t.outputBytes(rows! * 4), t.output(rows!), t.floats(logits)]
        t.call(
          "sample",
          ids,
          logp,
          source,
          rows!,
          vocab!,
          t.floats(settings),
          t.integers(rng),
          t.integers(history),
          maxHistory,
        )
        const chosen = new Int32Array((await t.same(ids, "ids")).buffer)
        check(
          chosen.every((id) => id >= 0 && id < vocab!),
          "ids must lie in the vocabulary",
        )
        await t.compare(logp, sumError(vocab!, 16), "logp")
        await t.same(source, "logits are not changed")
      },
    })),
  ),
}
