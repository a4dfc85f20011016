import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { renderChat } from "@sloth/data"
import { byteTokenizer } from "../../../data/fixtures/byte-tokenizer.ts"
import { scriptedEngine } from "../internal/testing/scripted-engine.ts"
import { sampledUnits } from "../online/sampled-unit.ts"
import { defineEnvironment, type Environment, type Tool } from "./environment.ts"
import { numberGuess } from "./number-guess.ts"
import { episodeSample, runEpisodes, turnAdvantages, turnReturns, type Episode } from "./run-episodes.ts"

const template = (name: string): string =>
  readFileSync(join(import.meta.dirname, "../../../data/fixtures/templates", `${name}.jinja`), "utf8")
const chatml = byteTokenizer({ chatTemplate: template("chatml") })
const qwen = byteTokenizer({ chatTemplate: template("qwen3") })
const llama = byteTokenizer({
  special: ["<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
  ends: ["<|eot_id|>"],
  chatTemplate: template("llama3"),
})

const options = { sampling: { maxTokens: 200 }, maxTokens: 4000, seed: 7 }

/** Counts down from a number that the row has; each right answer is worth 1. */
const countdown = defineEnvironment<{ from: number }, { next: number }>({
  name: "countdown",
  maxTurns: 5,
  reset: ({ from }) => ({
    messages: [{ role: "user", content: `Count down from ${from}.` }],
    state: { next: from - 1 },
  }),
  step: (state, { content }) => {
    if (content !== String(state.next)) return { reward: -1, done: true }
    state.next--
    return state.next < 0 ? { reward: 1, done: true } : { reward: 1, messages: [{ role: "user", content: "Go on." }] }
  },
})
/** Says the number before the last that was said. */
const counts = (said: string): string =>
  String(Number(said.match(/(?<=from |assistant\s*|<\|end_header_id\|>\s*)\d+/g)!.at(-1)) - 1)

describe("an episode", () => {
  test("has the ids of the whole conversation; only what the model said is scored", async () => {
    for (const [tokenizer, end] of [
      [chatml, "<|im_end|>"],
      [llama, "<|eot_id|>"],
    ] as const) {
      const { engine, calls } = scriptedEngine(tokenizer, counts, end)
      const { episodes, metrics } = await runEpisodes(engine, tokenizer, countdown, [{ from: 3 }], options)
      const [episode] = episodes as [Episode]
      expect(episode).toMatchObject({ reward: 3, ended: "done", row: 0, index: 0 })
      expect(episode.turns.map(({ text, reward }) => [text, reward])).toEqual([
        ["2", 1],
        ["1", 1],
        ["0", 1],
      ])
      expect(calls).toHaveLength(3)
      const rendered = renderChat(tokenizer.chatTemplate!, episode.messages, {
        bosToken: "<s>",
        eosToken: "</s>",
        date: new Date(),
      })
      const whole = tokenizer.decode([...episode.prompt, ...episode.tokens])
      // The template may print a line end behind the last turn, which no one has said.
      expect(rendered.startsWith(whole)).toBe(true)
      expect(rendered.slice(whole.length).trim()).toBe("")
      const scored = [...episode.tokens].filter((_, i) => episode.mask[i] === 1)
      expect(tokenizer.decode(scored)).toBe(`2${end}1${end}0${end}`)
      for (const [i, id] of [...episode.mask].entries()) expect(episode.logprobs[i] === 0).toBe(id === 0)
      for (const { start, end: stop, text } of episode.turns)
        expect(tokenizer.decode(Array.from(episode.tokens.subarray(start, stop)))).toBe(text + end)
      expect(metrics).toMatchObject({ "episodes/turns": 3, "episodes/ended/done": 1 })
    }
  })

  test("becomes a unit that the trainer takes, with advantages a turn", async () => {
    const { engine } = scriptedEngine(chatml, counts)
    const { episodes } = await runEpisodes(engine, chatml, countdown, [{ from: 2 }], options)
    const [episode] = episodes as [Episode]
    expect(turnReturns(episode)).toEqual([2, 1])
    expect(turnReturns(episode, 0.5)).toEqual([1.5, 1])
    const spread = turnAdvantages(episode, [2, 1])
    expect(spread.filter((x) => x !== 0).length).toBe(episode.mask.reduce((n, m) => n + m, 0))
    const [unit] = sampledUnits(episode.prompt, [episodeSample(episode, spread)], episode.row)
    expect(unit!.samples[0]!.mask).toEqual(episode.mask)
    expect(unit!.samples[0]!.sampling).toEqual(episode.logprobs)
    expect(episodeSample(episode, 1, 0.7).sampling).toBeUndefined()
    expect(() => turnAdvantages(episode, [1])).toThrow(expect.objectContaining({ code: "SLOTH_RL_SAMPLE" }))
  })

  test("episodes of a row share their prompt and their beginning, and go apart by what is said", async () => {
    let spoken = 0
    const { engine, calls } = scriptedEngine(chatml, (said) => (spoken++ % 2 === 0 ? counts(said) : "wrong"))
    const { episodes } = await runEpisodes(engine, chatml, countdown, [{ from: 2 }, { from: 1 }], {
      ...options,
      count: 2,
    })
    expect(calls[0]!.map(({ count }) => count)).toEqual([2, 2])
    expect(episodes.map(({ row, index, reward }) => [row, index, reward])).toEqual([
      [0, 0, 2],
      [0, 1, -1],
      [1, 0, 1],
      [1, 1, -1],
    ])
    expect(calls[1]).toHaveLength(1)
  })

  test("ends where there is no room, where a turn is cut off, and at the last turn", async () => {
    const { engine } = scriptedEngine(chatml, counts)
    const run = async (more: object) =>
      (await runEpisodes(engine, chatml, countdown, [{ from: 9 }], { ...options, ...more })).episodes[0]!
    expect(await run({})).toMatchObject({ ended: "turns", reward: 5 })
    expect(await run({ maxTokens: 260 })).toMatchObject({ ended: "length" })
    const cut = await run({ sampling: { maxTokens: 1 } })
    expect(cut).toMatchObject({ ended: "length", reward: 1 })
    expect(cut.turns).toHaveLength(1)
    expect((await run({ maxTokens: 100 })).turns).toEqual([])
  })
})

describe("tools", () => {
  const tools: Tool<{ used: number }>[] = [
    {
      name: "multiply",
      description: "Multiplies",
      parameters: {
        type: "object",
        properties: { a: { type: "number" }, b: { type: "number" } },
        required: ["a", "b"],
      },
      run: ({ a, b }, state) => {
        state.used++
        if (a === 13) throw new Error("unlucky")
        return { product: (a as number) * (b as number) }
      },
    },
  ]
  const environment = defineEnvironment<unknown, { used: number }>({
    name: "calculator",
    tools,
    reset: () => ({ messages: [{ role: "user", content: "6 times 7?" }], state: { used: 0 } }),
    step: (state, { content, calls }) =>
      calls.length > 0 ? { done: false } : { done: true, reward: content === "42" && state.used === 1 ? 1 : 0 },
  })
  const call = (args: string, name = "multiply"): string =>
    `<tool_call>\n{"name": "${name}", "arguments": ${args}}\n</tool_call>`

  test("are shown by the template, called, answered, and masked", async () => {
    for (const tokenizer of [qwen, chatml]) {
      const { engine, calls } = scriptedEngine(
        tokenizer,
        (said) => /"product":\s*(\d+)/.exec(said)?.[1] ?? call('{"a": 6, "b": 7}'),
      )
      const { episodes, metrics } = await runEpisodes(engine, tokenizer, environment, [{}], options)
      const [episode] = episodes as [Episode]
      expect(episode).toMatchObject({ reward: 1, ended: "done" })
      expect(metrics).toMatchObject({ "tools/calls": 1, "tools/failed": 0 })
      const scored = [...episode.tokens].filter((_, i) => episode.mask[i] === 1)
      expect(tokenizer.decode(scored)).not.toContain("product")
      expect(tokenizer.decode([...episode.tokens])).toContain('{"product":42}')
      if (tokenizer === qwen) expect(tokenizer.decode([...calls[0]![0]!.tokens])).toContain('"name": "multiply"')
    }
  })

  test("mistakes are told to the model and the episode goes on", async () => {
    const said = [call('{"a": "six"}'), call('{"a": 13, "b": 1}'), call("{}", "divide"), call('{"a": 6, "b": 7}'), "42"]
    const { engine } = scriptedEngine(qwen, (_, i) => said[i]!)
    const { episodes, metrics } = await runEpisodes(engine, qwen, environment, [{}], options)
    const told = episodes[0]!.messages.filter(({ role }) => role === "tool").map(({ content }) => content)
    expect(told[0]).toContain("do not fit")
    expect(told[1]).toBe("The tool failed: unlucky")
    expect(told[2]).toBe('There is no tool "divide". There are: multiply.')
    expect(metrics).toMatchObject({ "tools/calls": 4, "tools/failed": 3 })
    expect(episodes[0]!.ended).toBe("done")
  })

  test("definitions that cannot work are refused", () => {
    const base = { name: "x", reset: () => ({ messages: [], state: {} as { used: number } }) }
    for (const wrong of [
      { ...base, name: "" },
      { ...base, maxTurns: 0 },
      { ...base, tools: [...tools, ...tools] },
      { ...base, tools: [{ ...tools[0]!, parameters: { type: "nothing" } }] },
    ])
      expect(() => defineEnvironment<unknown, { used: number }>(wrong)).toThrow(
        expect.objectContaining({ code: "SLOTH_ENVIRONMENT_DEFINITION" }),
      )
  })
})

describe("an environment that fails", () => {
  const broken = (step: () => Promise<object> | object) =>
    defineEnvironment<unknown, { closed: boolean }>({
      name: "broken",
      reset: () => ({ messages: [{ role: "user", content: "?" }], state: { closed: false } }),
      step,
      close: (state) => {
        state.closed = true
        closed++
      },
    })
  let closed = 0
  const { engine } = scriptedEngine(chatml, () => "x")
  const cases = {
    SLOTH_ENVIRONMENT_FAILED: () => {
      throw new Error("no")
    },
    SLOTH_ENVIRONMENT_TIMEOUT: () => new Promise<object>(() => undefined),
    SLOTH_ENVIRONMENT_REWARD: () => ({ reward: Number.NaN }),
  }
  for (const [code, step] of Object.entries(cases))
    test(`${code}: ends the run, or only its episode`, async () => {
      const small = { ...options, turnSeconds: 0.05 }
      closed = 0
      expect(runEpisodes(engine, chatml, broken(step), [{}], small)).rejects.toMatchObject({ code })
      const { episodes } = await runEpisodes(engine, chatml, broken(step), [{}, {}], { ...small, onError: "null" })
      expect(episodes.map(({ reward, error }) => [reward, error?.code])).toEqual([
        [null, code],
        [null, code],
      ])
      expect(episodes[0]!.ended).toBe(code.endsWith("TIMEOUT") ? "timeout" : "failed")
      expect(closed).toBe(3)
    })

  test("loops without end, in any of its functions, are interrupted", async () => {
    const spin = (): never => {
      for (;;);
    }
    const first = { messages: [{ role: "user", content: "?" }], state: {} }
    const tool: Tool<object> = { name: "t", description: "d", parameters: {}, run: spin }
    const call = () => '<tool_call>{"name": "t", "arguments": {}}</tool_call>'
    const play = (environment: Environment<object, object>, tokenizer = chatml, says = () => "x") =>
      runEpisodes(scriptedEngine(tokenizer, says).engine, tokenizer, environment, [{}], {
        ...options,
        turnSeconds: 0.2,
        onError: "null",
      })
    const reset = () => first
    for (const { episodes } of [
      await play({ name: "reset", reset: spin }),
      await play({ name: "step", reset, step: spin }),
      await play({ name: "tool", reset, tools: [tool] }, qwen, call),
    ])
      expect(episodes.map(({ ended, error }) => [ended, error?.code])).toEqual([
        ["timeout", "SLOTH_ENVIRONMENT_TIMEOUT"],
      ])
    const { episodes } = await play({ name: "close", reset, step: () => ({ reward: 1, done: true }), close: spin })
    expect(episodes[0]!.reward).toBe(1)
  })

  test("a stopped run stops", async () => {
    const stop = new AbortController()
    stop.abort(new Error("enough"))
    expect(runEpisodes(engine, chatml, countdown, [{ from: 3 }], { ...options, signal: stop.signal })).rejects.toThrow(
      "enough",
    )
  })

  test("an engine that leaves a turn out has a code, a model without a template too", async () => {
    const empty = { ...engine, async *generate() {} } as typeof engine
    expect(runEpisodes(empty, chatml, countdown, [{ from: 3 }], options)).rejects.toMatchObject({
      code: "SLOTH_ENVIRONMENT_ROLLOUT",
    })
    expect(runEpisodes(engine, byteTokenizer(), countdown, [{ from: 3 }], options)).rejects.toMatchObject({
      code: "SLOTH_CHAT_TEMPLATE",
    })
  })
})

describe("numberGuess", () => {
  const bisect = (said: string): string => {
    let [low, high] = [1, Number(/from 1 to (\d+)/.exec(said)![1])]
    for (const [, guess, hint] of said.matchAll(
      /<guess>(\d+)<\/guess><\|im_end\|>\s*<\|im_start\|>user\s*My number is (higher|lower)/g,
    )) {
      if (hint === "higher") low = Number(guess) + 1
      else high = Number(guess) - 1
    }
    return `<guess>${Math.floor((low + high) / 2)}</guess>`
  }

  test("bisection always finds it, nonsense never, and a seed is a game", async () => {
    const rows = Array.from({ length: 20 }, () => ({}))
    const play = async (policy: (said: string) => string, seed: number) =>
      (
        await runEpisodes(scriptedEngine(chatml, policy).engine, chatml, numberGuess({ guesses: 7 }), rows, {
          ...options,
          seed,
        })
      ).episodes
    const good = await play(bisect, 1)
    expect(good.every(({ reward, ended }) => reward! >= 0.5 && ended === "done")).toBe(true)
    expect(new Set(good.map(({ turns }) => turns.length)).size).toBeGreaterThan(2)
    expect((await play(bisect, 1)).map(({ turns }) => turns.length)).toEqual(good.map(({ turns }) => turns.length))
    const bad = await play(() => "no idea <guess>1</guess> <guess>2</guess>", 1)
    expect(bad.every(({ reward }) => Math.abs(reward! + 0.7) < 1e-12)).toBe(true)
  })

  test("a guess that the hints rule out costs", async () => {
    const { engine } = scriptedEngine(chatml, () => "<guess>1000</guess>")
    const { episodes } = await runEpisodes(engine, chatml, numberGuess({ high: 10, guesses: 3 }), [{}], options)
    expect(episodes[0]!.reward).toBeCloseTo(-0.3, 12)
    expect(runEpisodes(engine, chatml, numberGuess(), [{ high: 1 }], options)).rejects.toMatchObject({
      code: "SLOTH_ENVIRONMENT_OPTION",
    })
  })
})
