import { afterAll, beforeEach, describe, expect, test } from "bun:test"
import { createServer, type IncomingMessage } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { runPaths, type RewardSample } from "@sloth/core"
import { readSamples } from "@sloth/train"
import { byteTokenizer } from "../../../data/fixtures/byte-tokenizer.ts"
import { scriptedEngine } from "../internal/testing/scripted-engine.ts"
import { codeOf, stepsOf, tinyRuns, type Given } from "../internal/testing/online-runs.ts"
import { evenTokens, tinyPrompts } from "../internal/testing/tiny-grpo.ts"
import { evaluateSampling, type EvaluateSamplingOptions } from "../online/evaluate-sampling.ts"
import { grpo } from "../online/grpo.ts"
import { nashMd } from "../online/nash-md.ts"
import { onlineDpo, xpo } from "../online/online-dpo.ts"
import { sumOf } from "./combine.ts"
import { endpointJudge, engineJudge } from "./judge-model.ts"
import { betterAnswer, definePairJudge, pairJudge, type PairJudgeOptions } from "./pair-judge.ts"
import { runRewards } from "./run-rewards.ts"

const read = async (request: IncomingMessage): Promise<string> => {
  let text = ""
  for await (const chunk of request) text += String(chunk)
  return text
}
/** The two answers as the judge reads them. */
const answersOf = (user: string): readonly [string, string] =>
  [1, 2].map((n) => new RegExp(`Answer ${n}:\n<<<\\w+\n([\\s\\S]*?)\n\\w+>>>`).exec(user)![1]!) as never
const asked: { readonly role: string; readonly content: string }[][] = []
/** What the judge says of the answers that it reads first and second. */
let says: (first: string, second: string, n: number) => string = () => "Better: tie"
const server = createServer(async (request, response) => {
  const { messages } = JSON.parse(await read(request)) as { messages: (typeof asked)[0] }
  asked.push(messages)
  const content = says(...answersOf(messages[1]!.content), messages.length)
  response.end(JSON.stringify({ choices: [{ message: { role: "assistant", content } }] }))
})
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
const { folder, run: start } = tinyRuns({
  rewards: [],
  settings: { temperature: 1, beta: 0.05 },
  config: { steps: 2, batch: 8, schedule: "constant" },
})
const shared = process.env["SLOTH_CACHE"]
process.env["SLOTH_CACHE"] = folder
afterAll(() => {
  if (shared === undefined) delete process.env["SLOTH_CACHE"]
  else process.env["SLOTH_CACHE"] = shared
  server.closeAllConnections()
  server.close()
})
beforeEach(() => {
  asked.length = 0
})

const rubric = "The longer answer is better."
const judge = (more: Partial<PairJudgeOptions> = {}) =>
  pairJudge({ judge: endpointJudge({ baseUrl, model: "judge-1" }), rubric, cache: false, ...more })
const samples = (...completions: string[]): RewardSample[] =>
  completions.map((completion, i) => ({
    prompt: `task ${Math.floor(i / 2)}`,
    completion,
    completionTokens: [],
    finishReason: "stop",
    row: { answer: "yes" },
  }))
const longer = (first: string, second: string): string =>
  `Well.\n**Better: ${first.length === second.length ? "tie" : first.length > second.length ? 1 : 2}**`

describe("pairJudge", () => {
  test("says which of two is better, whatever the order it reads them in, with ties and what it cannot say counted", async () => {
    says = longer
    const some = samples("aa", "b", "c", "dd", "ee", "ff", "gg", "gg")
    const { scores, metrics } = await runRewards([judge({ referenceColumn: "answer" })], some)
    expect(scores).toEqual([[1, 0, 0, 1, 0.5, 0.5, 0.5, 0.5]])
    // The same answer twice is not asked about.
    expect(asked).toHaveLength(3)
    expect([metrics["rewards/judge/ties"], metrics["rewards/judge/unparsed"]]).toEqual([0.5, 0])
    const [system, user] = asked[0]!
    expect(system!.content).toContain(rubric)
    for (const text of ["task 0", "yes"]) expect(user!.content).toContain(text)
    says = (first) => (first.startsWith("a") ? "Neither!" : "Better: 3")
    const silent = await runRewards([judge()], samples("aa", "b", "c", "dd"))
    expect(silent.scores).toEqual([[null, null, null, null]])
    expect(silent.metrics["rewards/judge/unparsed"]).toBe(1)
    // Each was asked for once more.
    expect(asked).toHaveLength(3 + 4)
    says = (_first, _second, n) => (n > 2 ? "Better: 1" : "Hm.")
    expect((await runRewards([judge({ order: "both" })], samples("aa", "b"))).scores).toEqual([[0.5, 0.5]])
  })

  test("a judge that likes what it reads first: the order is drawn for each pair, by seed and content alone; both orders make it a tie", async () => {
    says = () => "Better: 1"
    const some = samples(...Array.from({ length: 200 }, (_, i) => `answer ${i}`))
    const [scores, again, other] = await Promise.all(
      [0, 0, 1].map(async (seed) => (await judge({ seed }).score(some)).filter((_, i) => i % 2 === 0)),
    )
    expect(again).toEqual(scores!)
    expect(other).not.toEqual(scores!)
    // Four standard deviations of a share of one half over 100 are 0.2.
    expect(Math.abs(scores!.reduce<number>((n, p) => n + p!, 0) / 100 - 0.5)).toBeLessThan(0.2)
    // Whoever of the two was sampled first, the judge reads them in the same order.
    const [there] = await judge().score(samples("x", "y"))
    const [back] = await judge().score(samples("y", "x"))
    expect(there! + back!).toBe(1)
    expect(await judge({ order: "both" }).score(samples("x", "y", "v", "w"))).toEqual([0.5, 0.5, 0.5, 0.5])
  }, 60_000)

  test("keeps judgements on disk, asks no more at once than it may, and refuses what are no pairs", async () => {
    says = longer
    const cache = join(folder, "kept")
    expect(await judge({ cache }).score(samples("aa", "b"))).toEqual([1, 0])
    const { scores, metrics } = await runRewards([judge({ cache })], samples("aa", "b"))
    expect([scores, metrics["rewards/judge/cached"], asked.length]).toEqual([[[1, 0]], 1, 1])
    await judge({ cache, rubric: "Another." }).score(samples("aa", "b"))
    expect(asked).toHaveLength(2)
    expect(judge().score(samples("a", "b", "c"))).rejects.toMatchObject({ code: "SLOTH_JUDGE_PAIRS" })
    const [a, , c] = samples("a", "b", "c")
    expect(judge().score([a!, c!])).rejects.toMatchObject({ code: "SLOTH_JUDGE_PAIRS" })
    expect(sumOf([judge(), evenTokens]).score(samples("a", "b"))).rejects.toMatchObject({ code: "SLOTH_JUDGE_PAIRS" })
    const wrong = definePairJudge({ name: "wrong", compare: () => [1.5] })
    expect(wrong.score(samples("a", "b"))).rejects.toMatchObject({ code: "SLOTH_JUDGE_PAIRS" })
    expect(() => judge({ concurrency: 0 })).toThrow(expect.objectContaining({ code: "SLOTH_JUDGE_OPTION" }))
  })

  test("a local model judges through its engine", async () => {
    const tokenizer = byteTokenizer({
      chatTemplate:
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    })
    const { engine } = scriptedEngine(tokenizer, (said) => {
      const [first] = answersOf(said)
      return first === "blue" ? "Better: 1" : "Better: answer 2"
    })
    const local = pairJudge({ judge: engineJudge(engine, tokenizer, { name: "toy" }), rubric, cache: false })
    expect(await local.score(samples("blue", "red", "red", "blue"))).toEqual([1, 0, 0, 1])
  })

  test("betterAnswer takes the last line that names one", () => {
    expect(betterAnswer("Better: 1\nno\n## Better: Answer 2.")).toBe("second")
    expect(betterAnswer("_Better: tie_")).toBe("tie")
    expect(betterAnswer("Better: 12")).toBeUndefined()
    expect(betterAnswer("The better: 1 it is")).toBeUndefined()
  })
})

const run = (objective: typeof onlineDpo | typeof xpo | typeof nashMd, given: Given) => start({ objective, ...given })

/** Share of even tokens in a text of the tiny model's letters, as the judge reads it. */
const evenOf = (text: string): number => {
  const ids = [...text.matchAll(/<(\d+)>/g)].map(([, id]) => Number(id))
  return ids.filter((id) => id % 2 === 0).length / Math.max(1, ids.length)
}

describe("runs", () => {
  test("methods of pairs learn from a judge at an endpoint, by settings alone; ties and what it cannot say teach nothing", async () => {
    says = (first, second) => {
      const [a, b] = [evenOf(first), evenOf(second)]
      return a === b ? (a > 0.5 ? "?" : "Better: tie") : `Better: ${a > b ? 1 : 2}`
    }
    for (const objective of [onlineDpo, xpo, nashMd]) {
      const { run: path } = await run(objective, {
        settings: { judge: baseUrl, judgeModel: "judge-1", judgeRubric: rubric },
        // Learning is shown once: how the others learn is shown beside them.
        config: { steps: objective === onlineDpo ? 40 : 4, seed: 1 },
      })
      const all = readSamples(runPaths(path).samples)
      for (let i = 0; i < all.length; i += 2) {
        const [first, second] = [all[i]!, all[i + 1]!]
        const [a, b] = [evenOf(String(first["completion"])), evenOf(String(second["completion"]))]
        const p = a === b ? undefined : a > b ? 1 : 0
        if (p === undefined) expect([first["advantage"], second["advantage"]]).toEqual([0, 0])
        else if (objective === nashMd) expect([first["advantage"], second["advantage"]]).toEqual([p - 0.5, 0])
        else expect([first["advantage"], second["advantage"]]).toEqual([2 * p - 1, 1 - 2 * p])
      }
      const [first] = stepsOf(path)
      expect(first!.metrics!["rewards/judge/ties"]).toBeGreaterThanOrEqual(0)
      if (objective !== onlineDpo) continue
      const even = (from: number, to: number) => {
        const some = all.filter(({ step }) => step > from && step <= to)
        return some.reduce((n, { completion }) => n + evenOf(String(completion)), 0) / some.length
      }
      // 160 completions of 6 tokens that are even by chance: a mean of 0.5 ± 0.016 when nothing is learnt.
      const [early, late] = [even(0, 10), even(30, 40)]
      expect([late > early + 0.1, early, late]).toEqual([true, early, late])
    }
  }, 300_000)

  test("what a judge cannot do is refused before anything starts", async () => {
    const own = definePairJudge({ name: "own", compare: (pairs) => pairs.map(() => 1) })
    expect(await codeOf(run(grpo as never, { rewards: [own] }))).toBe("SLOTH_RL_JUDGE")
    expect(await codeOf(run(onlineDpo, { rewards: [own, evenTokens] }))).toBe("SLOTH_RL_JUDGE")
    expect(await codeOf(run(onlineDpo, { rewards: [own], settings: { rewardWeights: [2] } }))).toBe("SLOTH_RL_JUDGE")
    expect(await codeOf(run(onlineDpo, { rewards: [own], settings: { missingEndPenalty: 1 } }))).toBe("SLOTH_RL_JUDGE")
    const held = { data: { examples: tinyPrompts, heldOut: tinyPrompts.slice(0, 2) }, rewards: [own] }
    expect(await codeOf(run(onlineDpo, { ...held, config: { evalEvery: 1 } }))).toBe("SLOTH_RL_JUDGE")
    const settings = {} as EvaluateSamplingOptions["settings"]
    const evaluated = evaluateSampling([], { rewards: [own] } as never, {
      settings,
      method: "online_dpo",
      samples: 2,
      seed: 0,
    })
    expect(await codeOf(evaluated)).toBe("SLOTH_RL_JUDGE")
    const at = { judge: baseUrl, judgeModel: "m" }
    expect(await codeOf(run(onlineDpo, { rewards: [evenTokens], settings: at }))).toBe("SLOTH_RL_SETTINGS")
    expect(await codeOf(run(onlineDpo, { settings: { judge: baseUrl } }))).toBe("SLOTH_RL_SETTINGS")
    expect(await codeOf(run(onlineDpo, { rewards: [evenTokens], settings: { judgeModel: "m" } }))).toBe(
      "SLOTH_RL_SETTINGS",
    )
    expect(await codeOf(run(onlineDpo, { settings: { judge: "localhost", judgeModel: "m" } }))).toBe(
      "SLOTH_JUDGE_OPTION",
    )
    expect(await codeOf(run(onlineDpo, {}))).toBe("SLOTH_RL_NO_REWARD")
    expect(await codeOf(run(nashMd, { rewards: [own] }))).toBe("none")
  }, 60_000)
})
