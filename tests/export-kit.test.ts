import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { opinionOf, peftExporter, type Exporter, type ExportReport, type TrainedModel } from "@sloth/export"
import { attachLora, DEFAULT_LORA, type ModelFiles } from "@sloth/model"
import type { Engine } from "@sloth/tensor"
import { describeExporter } from "@sloth/testing"
import { garden } from "../examples/03-custom-exporter-and-tracker/plugin.ts"
import { collectingApi, firstFailureOf } from "../packages/testing/src/internal/collecting-api.ts"
import { fill } from "./support/smollm2.ts"
import { writeRandomNano } from "./support/random-nano.ts"

setDefaultTimeout(120_000)

const folder = mkdtempSync(join(tmpdir(), "sloth-kit-"))
let files: ModelFiles
beforeAll(async () => {
  files = await writeRandomNano(join(folder, "base"))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const trained = (engine: Engine): Promise<TrainedModel> => {
  const model = files.build(engine)
  const lora = { ...DEFAULT_LORA, rank: 8 }
  attachLora(model, lora, 3)
  for (const t of model.trainables()) if (t.outer) t.tensor.write(fill(t.name, t.tensor.size, 0.1))
  return Promise.resolve({ model, files, lora, base: "org/base", texts: [[5, 300, 41, 7, 1999, 12, 13, 14]] })
}

/** A report as one that was verified would be. */
const praise = (name: string, path: string, bytes: number, { texts }: TrainedModel): ExportReport => ({
  format: name,
  path,
  bytes,
  seconds: 0,
  hint: "look at it",
  verification: {
    tokens: texts.reduce((n, t) => n + t.length - 1, 0),
    largest: 0,
    mean: 0,
    agreement: 1,
    allowed: { largest: 1e-3, mean: 1e-3, reason: "f32" },
  },
})
const variant = (change: Partial<Exporter>): Exporter => ({ ...peftExporter, ...change }) as Exporter
const bad: Record<string, Exporter> = {
  "an exporter that compares nothing": variant({
    export: async (t, to) => {
      const data = await Promise.all(t.model.trainables().map(({ tensor }) => tensor.readFloats()))
      mkdirSync(to, { recursive: true })
      const bytes = Buffer.concat(data.map((d) => Buffer.from(d.buffer, d.byteOffset, d.byteLength)))
      writeFileSync(join(to, "all.bin"), bytes)
      return praise("peft", to, bytes.length, t)
    },
  }),
  "an exporter that leaves scratch behind": variant({
    export: async (t, to, o) => {
      writeFileSync(`${to}.scratch`, "")
      return peftExporter.export(t, to, o)
    },
  }),
  "an exporter that empties the place first": variant({
    export: async (t, to, o) => {
      rmSync(to, { recursive: true, force: true })
      return peftExporter.export(t, to, o)
    },
  }),
  "an exporter that changes the model": variant({
    export: async (t, to, o) => {
      const report = await peftExporter.export(t, to, o)
      const { tensor } = t.model.trainables().find(({ outer }) => outer)!
      tensor.write(fill("other", tensor.size, 0.2))
      return report
    },
  }),
  "a report of other bytes": variant({
    export: async (t, to, o) => ({ ...(await peftExporter.export(t, to, o)), bytes: 1 }),
  }),
  "an exporter that leaks": variant({
    export: async (t, to, o) => {
      t.model.engine.unscoped([4])
      return peftExporter.export(t, to, o)
    },
  }),
  "an adapter format that takes a model without one": variant({
    export: async (t, to, o) => {
      if (t.lora !== undefined) return peftExporter.export(t, to, o)
      await opinionOf(t.model, t.texts)
      mkdirSync(to)
      return praise("peft", to, 0, t)
    },
  }),
  "a bare error": variant({
    export: (t, to, o) =>
      peftExporter.export(t, to, o).catch(() => {
        throw new Error("no")
      }),
  }),
}

// An exporter of a third party: the example's.
describeExporter("ollama", () => garden().provides.exporters[0], { trained })

describe("the kit refuses", () => {
  test("nothing of an exporter that keeps the contract", async () => {
    const api = collectingApi()
    describeExporter("peft", () => peftExporter, { trained, api })
    expect(await firstFailureOf(api.tests)).toBeUndefined()
  })
  for (const [label, exporter] of Object.entries(bad))
    test(label, async () => {
      const api = collectingApi()
      describeExporter(label, () => exporter, { trained, api })
      expect(await firstFailureOf(api.tests)).toBeString()
    })
})

/** Runs a command with a real disk of 16 KB mounted at `disk`, in a mount namespace of its own. */
const small = (disk: string, command: readonly string[]) =>
  spawnSync("unshare", ["-Urm", "sh", "-c", `mount -t tmpfs -o size=16k tmpfs "$0" && exec "$@"`, disk, ...command], {
    encoding: "utf8",
    cwd: join(import.meta.dirname, ".."),
    env: { ...process.env, SLOTH_TEST_FULL_DISK: disk },
  })
const disk = join(folder, "disk")
mkdirSync(disk)
const canMount = process.platform === "linux" && small(disk, ["true"]).status === 0

// Needs Linux user namespaces, to mount a small disk without being root.
test.skipIf(!canMount)("every exporter of ours refuses a full disk and leaves nothing on it", () => {
  const result = small(disk, [process.execPath, "test", "tests/export.test.ts", "-t", "a full disk"])
  expect(result.stderr).toContain(" 9 pass")
  expect(result.stderr).toContain(" 0 fail")
})
