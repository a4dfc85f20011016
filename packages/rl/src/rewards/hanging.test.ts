import { describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import type { Reward, RewardSample } from "@sloth/core"
import { thrown } from "../../../data/fixtures/thrown.ts"
import { defineReward } from "./define-reward.ts"
import { runRewards } from "./run-rewards.ts"

const samples = ["a", "bb", "ccc"].map((completion): RewardSample => ({
  prompt: "p",
  completion,
  completionTokens: [1],
  finishReason: "stop",
  row: {},
}))
const length = defineReward({ name: "length", each: ({ completion }) => completion.length })
const spin = (): never => {
  for (;;);
}
const stubborn = (): never => {
  for (;;)
    try {
      spin()
    } finally {
      // Nothing that it does here keeps it going.
      spin()
    }
}
const hanging = (name: string, score: () => unknown): Reward => ({ name, score: score as Reward["score"] })

describe("a reward that computes without end", () => {
  for (const [name, loop] of Object.entries({ spin, stubborn }))
    test(`${name}: a coded error, or null`, async () => {
      const error = await thrown(() => runRewards([length, hanging("late", loop)], samples, { timeoutSeconds: 0.2 }))
      expect([error.code, error.fields["reward"]]).toEqual(["SLOTH_REWARD_TIMEOUT", "late"])
      const run = await runRewards([hanging("late", loop), length], samples, { timeoutSeconds: 0.2, onError: "null" })
      expect(run.scores).toEqual([
        [null, null, null],
        [1, 2, 3],
      ])
      expect(run.problems.map(({ reward, error: { code } }) => [reward, code])).toEqual([
        ["late", "SLOTH_REWARD_TIMEOUT"],
      ])
    })

  test("in an async function too, before it waits; and each is another reward's loss of time, not its own", async () => {
    const patient: Reward = {
      name: "patient",
      score: async (all) => {
        await new Promise((done) => setTimeout(done, 150))
        return all.map(() => 1)
      },
    }
    // The patient one has 0.3 s, and the thread is held for 0.6 s meanwhile.
    const rewards = [patient, hanging("one", async () => spin()), hanging("two", spin)]
    const run = await runRewards(rewards, samples, { timeoutSeconds: 0.3, onError: "null" })
    expect(run.scores).toEqual([
      [1, 1, 1],
      [null, null, null],
      [null, null, null],
    ])
    expect(run.problems.map(({ reward }) => reward)).toEqual(["one", "two"])
  })

  test("a limit that is longer than timers can be is none that is over at once", async () => {
    const later = hanging("later", async () => {
      await new Promise((done) => setTimeout(done, 20))
      return [1, 1, 1]
    })
    expect((await runRewards([later], samples, { timeoutSeconds: 1e7 })).scores).toEqual([[1, 1, 1]])
  })

  test("an error of its own that says timeout is not taken for it", async () => {
    const error = Object.assign(new Error("mine"), { code: "ERR_SCRIPT_EXECUTION_TIMEOUT" })
    const own = hanging("own", () => {
      throw error
    })
    expect((await thrown(() => runRewards([own], samples))).code).toBe("SLOTH_REWARD_THREW")
  })
})

describe("endStuckProcess", () => {
  const child = (body: string) =>
    spawnSync(process.execPath, ["-e", body], {
      cwd: join(import.meta.dirname, "../.."),
      encoding: "utf8",
      timeout: 60_000,
    })
  const reward = (score: string): string => `
    import { endStuckProcess, runRewards } from "./src/index.ts"
    using watch = endStuckProcess((error) => "SAID " + error.code + " " + error.what)
    const samples = [{ prompt: "p", completion: "c", completionTokens: [1], finishReason: "stop", row: {} }]
    const score = ${score}
    const run = () => runRewards([{ name: "late", score }], samples, { timeoutSeconds: 0.2, onError: "null" })
    console.log(JSON.stringify((await run()).scores))
  `

  test("ends the process where a reward loops after an await, and says which", () => {
    const { stdout, stderr, signal } = child(
      reward(`async () => { await new Promise((done) => setTimeout(done, 50)); for (;;); }`),
    )
    expect([stdout, signal]).toEqual(["", "SIGKILL"])
    expect(stderr).toContain('SAID SLOTH_REWARD_TIMEOUT The reward "late" has held the thread for 5 s')
  }, 60_000)

  test("leaves alone what comes back, what can be interrupted, and a program that is busy with other things", () => {
    const { stdout, stderr, status } = child(
      // One watch within another ends without leaving anything behind.
      `${reward(`async () => {
        using other = endStuckProcess(() => "")
        await new Promise((done) => setTimeout(done, 50))
        return [1]
      }`)}
      const busy = Date.now() + 6000
      while (Date.now() < busy);
      const loop = await runRewards([{ name: "loop", score: () => { for (;;); } }], samples, { timeoutSeconds: 0.2, onError: "null" })
      console.log(JSON.stringify(loop.scores))`,
    )
    expect([stdout, status, stderr]).toEqual(["[[1]]\n[[null]]\n", 0, ""])
  }, 60_000)
})
