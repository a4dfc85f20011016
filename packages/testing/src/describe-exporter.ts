import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createHash } from "node:crypto"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"

import { opinionOf, type Exporter, type ExportReport, type TrainedModel } from "@sloth/export"
import { createReferenceBackend, Engine } from "@sloth/tensor"

import { check, checkFails } from "./internal/assert.ts"
import { defaultTestApi, type TestApi } from "./test-api.ts"

/** Settings of {@link describeExporter}. */
export interface DescribeExporterOptions {
  /**
   * Makes a small model with an adapter that changes what it says, on the engine given; two layers of 64 are enough. Some weight matrices need more than 1,024 bytes, the
   * texts fewer than 200 tokens each. The kit disposes the model.
   */
  readonly trained: (engine: Engine) => Promise<TrainedModel>
  /** Looks at what was written; throws when something is missing. */
  readonly inspect?: (report: ExportReport) => void | Promise<void>
  /** A folder on a file system with less free space than the export needs: the refusal of a full disk is tried there. */
  readonly fullDisk?: string
  /** Functions of the test runner; `bun:test` or `node:test` when absent. */
  readonly api?: TestApi
}

/** Files below a path with hashes of what they hold, and folders: equal means untouched. */
const snapshot = (path: string): string => {
  if (!existsSync(path)) return "nothing"
  if (!statSync(path).isDirectory()) return createHash("sha256").update(readFileSync(path)).digest("hex")
  return JSON.stringify(
    readdirSync(path)
      .sort()
      .map((name) => [name, snapshot(join(path, name))]),
  )
}

const bytesAt = (path: string): number =>
  statSync(path).isDirectory()
    ? readdirSync(path).reduce((n, name) => n + bytesAt(join(path, name)), 0)
    : statSync(path).size

/** Bytes that a read of log-probs never reaches, and a read of weights does. */
const WEIGHT_BYTES = 1024

/** Runs `body` while every weight that leaves memory is damaged on the way: every second byte has a bit turned over. */
const withDamagedWeights = async <R>(engine: Engine, body: () => Promise<R>): Promise<R> => {
  const { memory } = engine.backend
  const { read } = memory
  memory.read = async (handle, offset, bytes) => {
    const data = await read.call(memory, handle, offset, bytes)
    if (data.length < WEIGHT_BYTES) return data
    const damaged = data.slice()
    // The high byte of 16-bit floats, the exponent of 32-bit ones, half the codes of quantised blocks.
    for (let i = 1; i < damaged.length; i += 2) damaged[i]! ^= 0x40
    return damaged
  }
  try {
    return await body()
  } finally {
    memory.read = read
  }
}

/**
 * Declares the conformance tests of an exporter: its report is true; what it wrote was compared with the model in memory, so that damaged weights are refused; the model is
 * left as it was; files appear whole or not at all, and a failure leaves what stood there before; what is no earlier export is never overwritten; a format for adapters refuses
 * a model without one; a place that cannot be written and, where `fullDisk` names one, a full disk are coded errors.
 */
export function describeExporter(
  name: string,
  make: () => Exporter | Promise<Exporter>,
  options: DescribeExporterOptions,
): void {
  const { describe, test } = options.api ?? defaultTestApi()

  interface Place {
    readonly exporter: Exporter
    readonly trained: TrainedModel
    readonly engine: Engine
    readonly folder: string
    /** A path in the folder with the ending of the format. */
    readonly at: (stem: string) => string
  }
  const inFolder = async (body: (place: Place) => Promise<void>): Promise<void> => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-exporter-"))
    using engine = new Engine(createReferenceBackend())
    try {
      const exporter = await make()
      const trained = await options.trained(engine)
      using _ = trained.model
      // A first pass makes what the model keeps, such as its tables of angles.
      await opinionOf(trained.model, trained.texts)
      const before = engine.backend.memory.stats().liveBuffers
      await body({ exporter, trained, engine, folder, at: (stem) => join(folder, `${stem}${exporter.extension}`) })
      const { liveBuffers } = engine.backend.memory.stats()
      check(liveBuffers === before, `${liveBuffers - before} buffers were left behind on the backend`)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
  const checkReport = (report: ExportReport, exporter: Exporter, trained: TrainedModel, to: string): void => {
    const { verification: v } = report
    check(report.format === exporter.name, `the report's format is "${report.format}", not "${exporter.name}"`)
    check(existsSync(report.path), `the report names ${report.path}, which does not exist`)
    check(existsSync(to), `nothing stands at ${to}`)
    check(
      statSync(to).isDirectory() === (exporter.extension === ""),
      "a format with an ending writes a file, one without a folder",
    )
    check(
      report.bytes === bytesAt(report.path),
      `the report says ${report.bytes} bytes; there are ${bytesAt(report.path)}`,
    )
    check(Number.isFinite(report.seconds) && report.seconds >= 0, `${report.seconds} seconds`)
    check(report.hint.trim() !== "", "the report has no hint for the next program")
    const tokens = trained.texts.reduce((n, t) => n + t.length - 1, 0)
    check(v.tokens === tokens, `${v.tokens} tokens were compared; the texts have ${tokens} with a log-prob`)
    check(
      v.largest <= v.allowed.largest && v.mean <= v.allowed.mean,
      "the report was made although more differs than allowed",
    )
    check(
      v.mean <= v.largest && v.mean >= 0,
      `mean ${v.mean} and largest difference ${v.largest} do not belong together`,
    )
    check(v.agreement >= 0 && v.agreement <= 1, `an agreement of ${v.agreement}`)
    check(v.allowed.reason.trim() !== "", "what is allowed has no reason")
  }

  describe(`exporter ${name}`, () => {
    test("has a name, a description, and an ending", async () => {
      const e = await make()
      check(/^[a-z0-9][a-z0-9._-]*$/.test(e.name), `"${e.name}" cannot be a value of --format`)
      check(e.description.trim() !== "", "it has no description")
      check(e.extension === "" || /^\.[a-z0-9.]+$/.test(e.extension), `"${e.extension}" is no file ending`)
    })

    test("writes, reads back, compares and reports what is true", () =>
      inFolder(async ({ exporter, trained, at, folder }) => {
        const to = at("out")
        let last = 0
        const report = await exporter.export(trained, to, {
          onProgress: (_, done, total) => {
            check(done > last && done <= total, `progress went from ${last} to ${done} of ${total}`)
            last = done
          },
        })
        checkReport(report, exporter, trained, to)
        await options.inspect?.(report)
        const left = readdirSync(folder).filter((n) => n !== basename(to))
        check(left.length === 0, `${left.join(", ")} was left beside the export`)
      }))

    test("leaves the model as it was", () =>
      inFolder(async ({ exporter, trained, at }) => {
        const before = await opinionOf(trained.model, trained.texts)
        await exporter.export(trained, at("out"))
        const after = await opinionOf(trained.model, trained.texts)
        for (const [i, text] of before.logprobs.entries())
          check(text.join() === after.logprobs[i]!.join(), `the log-probs of text ${i} changed`)
      }))

    test("replaces an earlier export of its own", () =>
      inFolder(async ({ exporter, trained, at, folder }) => {
        const to = at("out")
        await exporter.export(trained, to)
        checkReport(await exporter.export(trained, to), exporter, trained, to)
        check(
          readdirSync(folder).length === 1,
          `${readdirSync(folder).join(", ")} are there after two exports to one place`,
        )
      }))

    test("refuses damaged weights, and leaves nothing, or what stood there", () =>
      inFolder(async ({ exporter, trained, engine, at, folder }) => {
        const to = at("out")
        const damaged = () => withDamagedWeights(engine, () => exporter.export(trained, to))
        await checkFails(damaged, () => true, "an export whose file holds other weights than the model")
        check(readdirSync(folder).length === 0, `${readdirSync(folder).join(", ")} was left by a failed export`)
        await exporter.export(trained, to)
        const good = snapshot(folder)
        await checkFails(damaged, () => true, "a second export whose file holds other weights")
        check(snapshot(folder) === good, "a failed export changed the good one that stood there")
      }))

    test("never overwrites what is no export of its own", () =>
      inFolder(async ({ exporter, trained, at, folder }) => {
        const other = at("diary")
        mkdirSync(other)
        writeFileSync(join(other, "diary.txt"), "mine")
        const file = at("letter")
        writeFileSync(file, "Dear reader, this is not a model.")
        const before = snapshot(folder)
        await checkFails(
          () => exporter.export(trained, other),
          () => true,
          "an export over a folder with other things in it",
        )
        await checkFails(
          () => exporter.export(trained, file),
          () => true,
          "an export over a file of another kind",
        )
        check(snapshot(folder) === before, "an export that was refused changed what stood there")
      }))

    test("a place that cannot be written is a coded error", () =>
      inFolder(async ({ exporter, trained, at, folder }) => {
        writeFileSync(join(folder, "file"), "")
        const before = snapshot(folder)
        const to = join(folder, "file", basename(at("out")))
        await checkFails(
          () => exporter.export(trained, to),
          () => true,
          "an export into a file",
        )
        check(snapshot(folder) === before, "an export that was refused left something behind")
      }))

    test("a model without an adapter is exported, or refused where the format holds adapters only", () =>
      inFolder(async ({ exporter, trained, at, folder, engine }) => {
        using model = trained.files.build(engine)
        const plain: TrainedModel = { ...trained, model, lora: undefined }
        const to = at("out")
        if (exporter.adapterOnly) {
          await checkFails(
            () => exporter.export(plain, to),
            (code) => code === "SLOTH_EXPORT_NO_ADAPTER",
            "an adapter format without an adapter",
          )
          check(readdirSync(folder).length === 0, `${readdirSync(folder).join(", ")} was left by a refused export`)
        } else checkReport(await exporter.export(plain, to), exporter, plain, to)
      }))

    const { fullDisk } = options
    if (fullDisk === undefined) test.skip("a full disk (the option fullDisk names none)", () => {})
    else
      test("a full disk is refused before anything is written", () =>
        inFolder(async ({ exporter, trained }) => {
          const before = snapshot(fullDisk)
          await checkFails(
            () => exporter.export(trained, join(fullDisk, `out${exporter.extension}`)),
            (code) => code === "SLOTH_DISK_SPACE" || code === "SLOTH_DISK_FULL",
            "an export to a full disk",
          )
          check(snapshot(fullDisk) === before, "an export to a full disk left something behind")
        }))
  })
}
