import { afterAll, expect, test } from "bun:test"
import { join } from "node:path"
import { loadPeftAdapter } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { goldenDir } from "./support/golden.ts"
import { onlineDifferences } from "./support/online-steps.ts"
import { buildTiny } from "./support/tiny.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

test("steps of TRL's online trainers on the same completions: loss, advantages, and the gradient of every tensor that is trained", async () => {
  using model = buildTiny(engine, "untied")
  using teacher = buildTiny(engine, "tied")
  loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
  const all = await onlineDifferences(model, teacher)
  expect(all.map(({ name }) => name)).toEqual([
    "online-dpo",
    "online-dpo-ipo",
    "xpo",
    "xpo-ipo",
    "nash-md",
    "nash-md-penalty",
    "rloo",
    "rloo-moved",
    "replay",
    "replay-dapo",
    "gkd-student",
    "gkd-teacher",
    "gkd-rows",
    "ppo",
    "ppo-k3",
  ])
  for (const { name, loss, gradient, advantages = 0 } of all) {
    // Our float32 against TRL's float64.
    expect([name, loss < 1e-5, loss]).toEqual([name, true, loss])
    expect([name, gradient < 1e-5, gradient]).toEqual([name, true, gradient])
    expect([name, advantages < 1e-5, advantages]).toEqual([name, true, advantages])
  }
}, 60_000)
