import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { RunEvent } from "@sloth/core"
import { CHATML_TEMPLATE } from "@sloth/data"
import { attachLora, DEFAULT_LORA, loadPeftAdapter } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { buildMicroBatch, hostOutputs, train } from "@sloth/train"
import { byteTokenizer } from "../../../data/fixtures/byte-tokenizer.ts"
import { thrown } from "../../../data/fixtures/thrown.ts"
import { randomFiles } from "../../../train/src/internal/testing/tiny.ts"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { rewardModelScorer } from "../rewards/reward-model.ts"
import { processReward, processRewardLoss, stepsUnit } from "./process-reward.ts"
import { rewardModel, rewardModelLoss, rewardUnit, type RewardPair } from "./reward-model.ts"
import { scoreTexts } from "./score-texts.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})
const tokenizer = byteTokenizer({ chatTemplate: CHATML_TEMPLATE })

describe("the loss of a reward model", () => {
  const pairs: RewardPair[] = [
    { chosen: 1.2, rejected: 0.3, margin: 0.5 },
    { chosen: -0.4, rejected: 0.1, margin: 0 },
    { chosen: 30, rejected: -40, margin: 1 },
  ]
  test("is TRL's: -log sigmoid of the difference beyond the margin, and the centring term, as means", () => {
    // -log sigmoid(0.4) = log(1 + e^-0.4), -log sigmoid(-0.5), -log sigmoid(69); sums 1.5, -0.3, -10.
    const margins = (Math.log1p(Math.exp(-0.4)) + Math.log1p(Math.exp(0.5)) + Math.log1p(Math.exp(-69))) / 3
    const { loss, metrics } = rewardModelLoss(pairs, { centring: 0.01 }, 3)
    expect(loss).toBeCloseTo(margins + (0.01 * (1.5 ** 2 + 0.3 ** 2 + 10 ** 2)) / 3, 12)
    expect(metrics["rewards/accuracies"]).toBeCloseTo(2 / 3, 12)
    expect(metrics["rewards/margins"]).toBeCloseTo((0.9 - 0.5 + 70) / 3, 12)
    expect(metrics["rewards/mean"]).toBeCloseTo((1.5 - 0.3 - 10) / 6, 12)
  })
  test("has the gradient of finite differences", () => {
    const flat = pairs.slice(0, 2).flatMap(({ chosen, rejected }) => [chosen, rejected])
    const at = (x: Float64Array) =>
      rewardModelLoss(
        [0, 1].map((i) => ({ chosen: x[2 * i]!, rejected: x[2 * i + 1]!, margin: pairs[i]!.margin })),
        { centring: 0.05 },
        2,
      )
    const analytic = at(Float64Array.from(flat)).gradients.flatMap(({ chosen, rejected }) => [chosen, rejected])
    const numeric = finiteDifferences(([x]) => at(x!).loss, [Float64Array.from(flat)])
    expect(largestDifference([analytic], numeric)).toBeLessThan(1e-8)
  })
})

describe("the loss of a process reward model", () => {
  const scores = [0.7, -1.1, 2, -0.2]
  const labels = [true, false, false, true]
  test("is the cross-entropy of two classes whose logits differ by the score", () => {
    // Logits (a, a + score) for wrong and right, as a classifier with two outputs has them.
    const classes = scores.map((s, i) => {
      const [wrong, right] = [0.3 * i, 0.3 * i + s]
      return Math.log(Math.exp(wrong) + Math.exp(right)) - (labels[i] === true ? right : wrong)
    })
    const { loss, metrics } = processRewardLoss(scores, labels, 4)
    expect(loss).toBeCloseTo(classes.reduce((n, x) => n + x, 0) / 4, 12)
    expect(metrics["steps/accuracies"]).toBe(0.5)
  })
  test("has the gradient of finite differences", () => {
    const numeric = finiteDifferences(([x]) => processRewardLoss(x!, labels, 4).loss, [Float64Array.from(scores)])
    expect(largestDifference([processRewardLoss(scores, labels, 4).gradients], numeric)).toBeLessThan(1e-8)
  })
})

describe("units", () => {
  const text = (tokens: readonly number[]) => ({
    tokens: Int32Array.from(tokens),
    scored: new Uint8Array(tokens.length),
  })
  for (const [name, chosen, rejected] of [
    ["a common beginning", [1, 2, 3, 4, 5], [1, 2, 3, 9]],
    ["one the beginning of the other", [1, 2, 3], [1, 2, 3, 4]],
    ["nothing in common", [1, 2], [3, 4, 5]],
    ["the same text twice", [1, 2], [1, 2]],
    ["single tokens", [7], [7]],
  ] as const)
    test(`${name}: each text is read at its last token, with the value it has alone`, async () => {
      using model = randomFiles().build(engine)
      model.addScoreHead(1)
      const unit = rewardUnit({ chosen: text(chosen), rejected: text(rejected), row: 0 })
      const valuesOf = async (units: Parameters<typeof buildMicroBatch>[0]) =>
        (await hostOutputs(model, buildMicroBatch(units), { logprobs: false, values: true })).values!
      const pair = await valuesOf([unit])
      for (const [k, tokens] of [chosen, rejected].entries()) {
        const alone = await valuesOf([
          {
            tokens: Int32Array.from(tokens),
            segments: [{ length: tokens.length, parent: null }],
            scoredRows: Int32Array.of(tokens.length - 1),
            targets: new Int32Array(1),
            sourceTokens: tokens.length,
            row: 0,
          },
        ])
        expect(pair[k]!).toBeCloseTo(alone[0]!, 6)
      }
    })
  test("only the last step", () => {
    const example = { tokens: Int32Array.of(1, 2, 3, 4, 5), ends: Int32Array.of(2, 4), labels: [false, true], row: 0 }
    expect([...stepsUnit(example, true).scoredRows]).toEqual([4])
    expect(stepsUnit(example, true).labels).toEqual([true])
    expect([...stepsUnit(example, false).scoredRows]).toEqual([2, 4])
  })
})

describe("rows", () => {
  test("pairs with a margin; too long ones are left out and not cut", async () => {
    const data = await rewardModel.open(
      [
        { prompt: "p", chosen: "ab", rejected: "c", margin: 0.5 },
        { prompt: "p", chosen: "a very long text", rejected: "c" },
      ],
      { tokenizer, maxLength: 8 },
    )
    expect(data.examples.map(({ margin }) => margin)).toEqual([0.5])
    expect(data.statement).toContain("1 left out for want of room")
    const wrong = { prompt: "p", chosen: "a", rejected: "b", margin: "much" }
    expect((await thrown(() => rewardModel.open([wrong], { tokenizer }))).code).toBe("SLOTH_DATA_FIELD")
  })
  test("rated steps: each is read at the separator after it", async () => {
    const row = { prompt: "2+2?", completions: ["2+2=4", "so 5"], labels: [true, 0] }
    const data = await processReward.open([row, { ...row, completions: JSON.stringify(row.completions) }], {
      tokenizer,
    })
    const { tokens, ends, labels } = data.examples[0]!
    expect(labels).toEqual([true, false])
    expect(tokenizer.decode([...tokens])).toBe("2+2?2+2=4\nso 5\n")
    for (const end of ends) expect(tokenizer.decode([tokens[end]!])).toBe("\n")
    expect(data.examples[1]!.tokens).toEqual(tokens)
    expect(data.statement).toBe("Recognised 2 rows of rated steps.")
    expect(data.preview.map(({ text }) => text).join("")).toBe("2+2?\nright: 2+2=4\nwrong: so 5")
    const cut = await processReward.open([row], { tokenizer, maxLength: 11 })
    expect(cut.examples[0]!.labels).toEqual([true])
    for (const bad of [
      {},
      { ...row, labels: [true] },
      { ...row, completions: ["", "x"] },
      { ...row, labels: [1, "x"] },
    ])
      expect((await thrown(() => processReward.open([bad], { tokenizer }))).code).toBe("SLOTH_RL_STEPS")
  })
})

describe("training", () => {
  const words = ["good", "fine", "kind", "bad", "ugly", "mean"]
  const pairs = Array.from({ length: 24 }, (_, i) => ({
    prompt: [{ role: "user", content: `q${i % 5}` }],
    chosen: [{ role: "assistant", content: words[i % 3]! }],
    rejected: [{ role: "assistant", content: words[3 + ((i * 2) % 3)]! }],
  }))
  test("a reward model learns its pairs, is saved and opened again, and scores as a reward", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-reward-"))
    const events: RunEvent[] = []
    try {
      const files = randomFiles({ vocab: tokenizer.vocabSize })
      const data = await rewardModel.open(pairs, { tokenizer, heldOut: 6 })
      const result = await train({
        engine,
        model: files,
        data,
        objective: rewardModel,
        settings: { centring: 0.01 },
        config: { steps: 30, batch: 6, learningRate: 1e-2, rank: 4, schedule: "constant", tokenBudget: 64 },
        measure: false,
        run: join(folder, "run"),
        onEvent: (event) => events.push(event),
      })
      const steps = events.filter((e) => e.type === "step")
      expect(steps[0]!.loss).toBeLessThan(1)
      expect(steps.at(-1)!.metrics!["rewards/accuracies"]).toBeCloseTo(1, 6)
      expect(result.evaluation!.metrics["rewards/accuracies"]).toBeCloseTo(1, 6)

      using model = files.build(engine)
      loadPeftAdapter(model, result.adapter!)
      const judge = { model, tokenizer }
      const prompt = [{ role: "user", content: "q1" }]
      const reward = rewardModelScorer(judge, { name: "kindness" })
      const samples = ["good", "ugly", ""].map((completion) => ({
        prompt,
        completion,
        completionTokens: [],
        finishReason: "stop" as const,
        row: {},
      }))
      const scores = await reward.score(samples)
      expect(scores[2]).toBeNull()
      expect(scores[0]!).toBeGreaterThan(scores[1]! + 1)
      // What is scored is what was learnt: the reward of a pair is that of its texts.
      const unit = rewardUnit(data.examples[0]!)
      const values = (await hostOutputs(model, buildMicroBatch([unit]), { logprobs: false, values: true })).values!
      const row = pairs[data.examples[0]!.row]!
      const alone = await scoreTexts(
        judge,
        [row.chosen, row.rejected].map(([answer]) => ({ prompt: row.prompt, completion: answer!.content })),
      )
      expect(alone[0]!).toBeCloseTo(values[0]!, 5)
      expect(alone[1]!).toBeCloseTo(values[1]!, 5)
      using plain = files.build(engine)
      attachLora(plain, { ...DEFAULT_LORA, rank: 4 }, 0)
      expect((await thrown(() => scoreTexts({ model: plain, tokenizer }, samples))).code).toBe("SLOTH_MODEL_NO_SCORE")
    } finally {
      rmSync(folder, { recursive: true })
    }
  }, 60_000)

  test("a process reward model learns which steps are right", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-prm-"))
    try {
      const rows = Array.from({ length: 12 }, (_, i) => ({
        prompt: `q${i % 4}: `,
        completions: [words[i % 3]!, words[3 + (i % 3)]!, words[(i + 1) % 3]!],
        labels: [true, false, true],
      }))
      const result = await train({
        engine,
        model: randomFiles({ vocab: tokenizer.vocabSize }),
        data: await processReward.open(rows, { tokenizer, heldOut: 3 }),
        objective: processReward,
        config: { steps: 30, batch: 6, learningRate: 1e-2, rank: 4, schedule: "constant" },
        measure: false,
        run: join(folder, "run"),
      })
      expect(result.evaluation!.metrics["steps/accuracies"]).toBeCloseTo(1, 6)
      expect(result.evaluation!.metrics["steps/good"]).toBeCloseTo(2 / 3, 6)
    } finally {
      rmSync(folder, { recursive: true })
    }
  }, 60_000)
})
