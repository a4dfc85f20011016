import { afterAll, expect, setDefaultTimeout, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Engine } from "@sloth/tensor"
import { backends } from "./internal/testing/backends.ts"
import { countingExamples, randomFiles } from "./internal/testing/tiny.ts"
import { train } from "./train.ts"

setDefaultTimeout(60_000)

const folder = mkdtempSync(join(tmpdir(), "sloth-threads-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const cpu = backends.find((b) => b.name === "cpu")!

for (const [name, config] of [
  ["LoRA with dropout", { dropout: 0.1, rank: 8 }],
  ["all weights", { full: true, optimizer: "adamw8bit" }],
] as const)
  test.skipIf(cpu.missing !== undefined)(`1, 2 and 5 threads give the same bytes: ${name}`, async () => {
    const outputs: Buffer[] = []
    for (const threads of [1, 2, 5]) {
      using engine = new Engine(await cpu.create({ threads }))
      const result = await train({
        engine,
        model: randomFiles({ hidden: 96, vocab: 300 }),
        data: { examples: countingExamples(48, 300) },
        measure: false,
        run: join(folder, `${name}-${threads}`),
        config: { steps: 6, batch: 24, learningRate: 1e-2, tokenBudget: 128, ...config },
      })
      const file = result.adapter === undefined ? "weights/model.safetensors" : "adapter/adapter_model.safetensors"
      outputs.push(readFileSync(join(result.run, file)))
      expect(engine.backend.memory.stats().liveBuffers).toBe(0)
    }
    for (const output of outputs.slice(1)) expect(output.equals(outputs[0]!)).toBe(true)
  })
