import { describe, expect, test } from "bun:test"
import { buildMicroBatch, splitUnits } from "./micro-batch.ts"
import type { TrainingUnit } from "./objective.ts"
import { pretraining, sft, unitFromExample } from "./sft.ts"

const unit = (length: number, row = 0): TrainingUnit => ({
  tokens: Int32Array.from({ length }, (_, i) => i + 1),
  segments: [{ length, parent: null }],
  scoredRows: Int32Array.of(length - 1),
  targets: Int32Array.of(99),
  sourceTokens: length + 1,
  row,
})

describe("splitUnits", () => {
  test("packs by best fit within the budget; long units are alone; each comes once", () => {
    const units = [7, 3, 12, 5, 8, 1].map((n) => unit(n))
    const split = splitUnits(units, { tokenBudget: 10, packing: true })
    expect(split[0]).toEqual([2])
    for (const bin of split.slice(1))
      expect(bin.reduce((n, i) => n + units[i]!.tokens.length, 0)).toBeLessThanOrEqual(10)
    expect(split.flat().sort()).toEqual([0, 1, 2, 3, 4, 5])
    expect(split).toHaveLength(4)
  })

  test("unpacked runs one unit at a time, in order", () => {
    expect(splitUnits([unit(3), unit(2)], { tokenBudget: 100, packing: false })).toEqual([[0], [1]])
  })
})

describe("units", () => {
  test("rows that predict nothing are left out, and the first token is never scored", () => {
    const made = unitFromExample({
      tokens: Int32Array.of(5, 6, 7, 8, 9, 10),
      mask: Uint8Array.of(1, 0, 1, 1, 0, 0),
      row: 3,
    })!
    expect([...made.tokens]).toEqual([5, 6, 7])
    expect([...made.scoredRows]).toEqual([1, 2])
    expect([...made.targets]).toEqual([7, 8])
    expect([made.sourceTokens, made.row]).toEqual([6, 3])
  })

  test("a micro-batch names each row that predicts once", () => {
    const shared: TrainingUnit = {
      tokens: Int32Array.of(1, 2, 3, 4, 5),
      segments: [
        { length: 3, parent: null },
        { length: 1, parent: 0 },
        { length: 1, parent: 0 },
      ],
      scoredRows: Int32Array.of(2, 3, 2, 4),
      targets: Int32Array.of(4, 6, 5, 7),
      sourceTokens: 8,
      row: 0,
    }
    const batch = buildMicroBatch([unit(12), shared])
    expect([...batch.rows]).toEqual([11, 14, 15, 14, 16])
    expect([...batch.read]).toEqual([11, 14, 15, 16])
    expect([...batch.at].map((i) => batch.read[i]!)).toEqual([...batch.rows])
  })

  test("a row with nothing scored becomes no unit; continued pretraining scores all", async () => {
    const rows = [{ tokens: Int32Array.of(1, 2, 3), mask: new Uint8Array(3), row: 0 }]
    const context = { settings: undefined, signal: undefined }
    expect(await sft.prepare(rows, context)).toEqual([])
    expect((await pretraining.prepare(rows, context)).map((u) => [...u.targets])).toEqual([[2, 3]])
  })
})

test("buildMicroBatch shifts rows and parents", () => {
  const pair: TrainingUnit = {
    tokens: Int32Array.of(1, 2, 3, 4, 5),
    segments: [
      { length: 2, parent: null },
      { length: 1, parent: 0 },
      { length: 2, parent: 0 },
    ],
    scoredRows: Int32Array.of(1, 1, 3),
    targets: Int32Array.of(3, 4, 5),
    sourceTokens: 5,
    row: 0,
  }
  const batch = buildMicroBatch([unit(2), pair])
  expect([...batch.tokens]).toEqual([1, 2, 1, 2, 3, 4, 5])
  expect(batch.layout.segments).toEqual([
    { start: 0, length: 2, parent: null },
    { start: 2, length: 2, parent: null },
    { start: 4, length: 1, parent: 1 },
    { start: 5, length: 2, parent: 1 },
  ])
  expect([...batch.rows]).toEqual([1, 3, 3, 5])
  expect([...batch.targets]).toEqual([99, 3, 4, 5])
  expect(batch.starts).toEqual([0, 1, 4])
  expect([...batch.layout.positions]).toEqual([0, 1, 0, 1, 2, 2, 3])
})
