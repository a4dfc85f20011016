import { afterAll, expect } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isSlothError, readEvents, runPaths, type StepEvent } from "@sloth/core"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { planRun, train, type TrainOptions } from "@sloth/train"
import type { PromptExample } from "../../data/prompts.ts"
import { evenTokens, tinyModel, tinyPrompts } from "./tiny-grpo.ts"

/** An engine and a folder for the tests of a file: the folder is removed at the end, and no buffer may be left. */
export const testEngine = (): { readonly engine: Engine; readonly folder: string } => {
  const folder = mkdtempSync(join(tmpdir(), "sloth-online-"))
  const engine = new Engine(createReferenceBackend())
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true })
    expect(engine.backend.memory.stats().liveBuffers).toBe(0)
    engine[Symbol.dispose]()
  })
  return { engine, folder }
}

/** Options of a run, of which only what differs is given; `settings` and `config` are added to those of the file. */
export type Given<Row = PromptExample> = Partial<TrainOptions<Row>>

/** Runs of the tiny model on the tiny prompts with the reward for even tokens, each in a folder of its own, for the tests of a file. */
export const tinyRuns = <Row = PromptExample>(defaults: Given<Row>) => {
  const { engine, folder } = testEngine()
  let runs = 0
  const { config, ...common } = defaults
  const options = (given: Given<Row>): TrainOptions<Row> =>
    ({
      engine,
      model: tinyModel(),
      data: { examples: tinyPrompts },
      rewards: [evenTokens],
      measure: false,
      run: join(folder, `run-${++runs}`),
      ...common,
      ...given,
      settings: { maxCompletionLength: 6, ...(common.settings as object), ...(given.settings as object) },
      // A resumed run has its own configuration.
      ...(given.resume === true ? {} : { config: { rank: 4, learningRate: 1e-2, ...config, ...given.config } }),
    }) as unknown as TrainOptions<Row>
  return {
    engine,
    folder,
    run: (given: Given<Row> = {}) => train<Row>(options(given)),
    plan: (given: Given<Row> = {}) => planRun<Row>(options(given)),
  }
}

/** The steps of a run, from its events. */
export const stepsOf = (run: string): StepEvent[] =>
  readEvents(runPaths(run).events).filter((e): e is StepEvent => e.type === "step")

/** Mean of a figure over steps. */
export const meanOf = (name: string, steps: readonly StepEvent[]): number =>
  steps.reduce((n, { metrics }) => n + metrics![name]!, 0) / steps.length

/** The bytes of the adapter that a run has left. */
export const adapterOf = (run: string): Buffer => readFileSync(join(run, "adapter", "adapter_model.safetensors"))

/** The code of the error that work ends with, or "none". */
export const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (error: unknown) => (isSlothError(error) ? error.code : String(error)),
  )
