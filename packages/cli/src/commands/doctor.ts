import { existsSync } from "node:fs"
import { freemem, totalmem } from "node:os"
import * as Schema from "effect/Schema"
import { describeConfig, formatBytes, freeDiskBytes, slothVersion, withDefault, type Backend } from "@sloth/core"
import type { SlotName } from "@sloth/core"
import { defineCommand } from "../command.ts"
import { jsonField } from "../session-flags.ts"
import { withSession, type Session } from "../session.ts"
import { columns, table } from "../terminal/text.ts"
import { cliVersion } from "../version.ts"

/** GFLOP/s of a matrix product of [n, n] by [n, n] on a backend: the best of a few. */
const productSpeed = async (backend: Backend, n: number, repeats: number): Promise<number> => {
  const { memory, kernels } = backend
  const [a, b, c] = [memory.alloc(n * n * 4), memory.alloc(n * n * 4), memory.alloc(n * n * 4)] as const
  try {
    kernels.fill(a, 0.5, n * n)
    kernels.fill(b, 0.25, n * n)
    await backend.synchronize()
    let best = Infinity
    for (let i = 0; i < repeats; i++) {
      const started = performance.now()
      kernels.matmul(c, a, b, n, n, n, 0, 0, 1, 0)
      await backend.synchronize()
      best = Math.min(best, performance.now() - started)
    }
    return (2 * n ** 3) / (best * 1e6)
  } finally {
    for (const handle of [a, b, c]) memory.free(handle)
  }
}

const runtime = (): string => {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>
  return bun !== undefined ? `Bun ${bun}` : deno !== undefined ? `Deno ${deno}` : `Node ${node ?? "?"}`
}

const slots: readonly SlotName[] = [
  "models",
  "backends",
  "objectives",
  "exporters",
  "trackers",
  "readers",
  "rewards",
  "rollouts",
  "callbacks",
  "commands",
]

/** What the machine and the installation are like. */
const examine = async ({ sloth, configFile }: Session) => {
  const { createReferenceBackend } = await import("@sloth/tensor")
  const choice = await sloth.backend()
  const factory = sloth.registry.get("backends", choice.name)
  using reference = createReferenceBackend()
  const referenceSpeed = await productSpeed(reference, 128, 3)
  using backend = await factory.create({})
  const native = choice.name !== "reference"
  const speed = native ? await productSpeed(backend, 512, 5) : referenceSpeed
  const { device } = backend
  const { sandboxWall } = await import("@sloth/sloth")
  return {
    sandbox: sandboxWall(),
    version: {
      cli: cliVersion(),
      core: slothVersion(),
      runtime: runtime(),
      platform: `${process.platform} ${process.arch}`,
    },
    backend: {
      name: choice.name,
      native,
      warning: choice.warning ?? null,
      device: device.description,
      isa: device.isa,
      isas: device.isas,
      precisions: device.precisions,
      threads: device.threads,
      memoryBytes: device.memoryBytes,
      gflops: speed,
      referenceGflops: referenceSpeed,
      available: choice.backends.map(({ name, availability }) => ({
        name,
        available: availability.available,
        detail: availability.available ? (availability.description ?? "") : availability.reason,
      })),
    },
    memory: { totalBytes: totalmem(), freeBytes: freemem() },
    disk: {
      runs: sloth.paths.runs,
      runsFreeBytes: await freeDiskBytes(sloth.paths.runs),
      cache: sloth.paths.cache,
      cacheFreeBytes: await freeDiskBytes(sloth.paths.cache),
      cacheExists: existsSync(sloth.paths.cache),
    },
    config: configFile ?? null,
    plugins: sloth.registry.plugins.map(({ name, version, provides, config }) => ({
      name,
      version,
      provides: Object.fromEntries(
        slots.flatMap((slot) => {
          const items = provides[slot]
          return items === undefined || items.length === 0 ? [] : [[slot, items.map((item) => item.name)]]
        }),
      ),
      settings: config === undefined ? [] : describeConfig(config).map(({ key }) => key),
    })),
  }
}

/** `sloth doctor`. */
export const command = defineCommand({
  name: "doctor",
  summary: "Say what runs natively here, what falls back, and what that costs.",
  description:
    "Looks at this machine and this installation: instruction set, threads, whether the native kernels load and how fast they are beside plain TypeScript, versions, free disk and memory, plugins and what they provide.",
  session: true,
  options: Schema.Struct({ json: jsonField.pipe(withDefault(false)) }),
  examples: [
    { command: "sloth doctor", description: "is everything as it should be?" },
    { command: "sloth doctor --json", description: "for a bug report" },
  ],
  run: (input) =>
    withSession(input, async (session) => {
      const { terminal } = input
      const facts = await examine(session)
      if (input.options.json) {
        terminal.print(JSON.stringify(facts))
        return
      }
      const { green, red, yellow, cyan, bold, dim } = terminal.style
      const { version, backend, memory, disk } = facts
      const times = backend.gflops / backend.referenceGflops
      const section = (title: string, rows: readonly (readonly [string, string])[]): void => {
        terminal.print(bold(title))
        for (const line of columns(
          rows.map(([name, text]) => [cyan(name), text] as const),
          terminal.width,
        ))
          terminal.print(line)
        terminal.print()
      }
      section("Versions", [
        ["sloth", `${version.cli} (core ${version.core})`],
        ["runtime", `${version.runtime} on ${version.platform}`],
      ])
      section("Compute", [
        [
          "kernels",
          backend.native
            ? `${green("native")}: every kernel, ${backend.isa} on ${backend.threads} threads; nothing falls back`
            : `${red("plain TypeScript")}: everything falls back to one thread of JavaScript. ${backend.warning ?? "The reference backend was asked for."}`,
        ],
        ["processor", backend.device],
        [
          "instructions",
          `${backend.isa} in use; this machine could also use ${backend.isas.filter((isa) => isa !== backend.isa).join(", ") || "nothing else"}`,
        ],
        [
          "precisions",
          `f32${backend.precisions.includes("bf16") ? ", bf16 (train, with --precision bf16)" : "; no bf16 instructions"}${
            backend.precisions.includes("int8")
              ? ", int8 (generate from Q4_0, Q4_1, Q8_0, with --precision int8)"
              : "; no int8 products"
          }`,
        ],
        [
          "speed",
          backend.native
            ? `${backend.gflops.toFixed(1)} GFLOP/s in matrix products; plain TypeScript: ${backend.referenceGflops.toFixed(2)}, ${times.toFixed(0)} times slower`
            : `${backend.gflops.toFixed(2)} GFLOP/s in matrix products`,
        ],
        ...backend.available.map(
          ({ name, available, detail }) =>
            [
              `backend ${name}`,
              `${available ? green("can run") : yellow("cannot run")}${detail === "" ? "" : `: ${detail}`}`,
            ] as const,
        ),
        ...(backend.native
          ? []
          : ([
              ["to mend it", "install a C++ compiler (such as g++ or clang) and run the installation again"],
            ] as const)),
      ])
      section("Room", [
        [
          "memory",
          `${formatBytes(memory.freeBytes)} free of ${formatBytes(memory.totalBytes)}; the backend may use ${formatBytes(backend.memoryBytes)}`,
        ],
        ["runs", `${disk.runs}, ${formatBytes(disk.runsFreeBytes)} free`],
        [
          "cache",
          `${disk.cache}${disk.cacheExists ? "" : " (not made yet)"}, ${formatBytes(disk.cacheFreeBytes)} free`,
        ],
        ["config", facts.config ?? "none found from here upward"],
      ])
      section("Programs that a model wrote", [
        [
          "interpreters",
          "QuickJS and CPython in WebAssembly, a fresh one for each program, in processes that are killed when time is up",
        ],
        [
          "system",
          facts.sandbox.by.length === 0
            ? yellow("no second wall here: this system offers none without rights, or does not allow it")
            : `${green("a second wall")} by ${facts.sandbox.by.join(" and ")}: ${[
                ...(facts.sandbox.network ? ["no network"] : []),
                ...(facts.sandbox.processes ? ["no other processes"] : []),
                ...(facts.sandbox.writing ? ["no file can be written"] : []),
                ...(facts.sandbox.reading ? ["no file of yours can be read"] : []),
                ...(facts.sandbox.memory ? ["memory is watched"] : []),
              ].join(", ")}`,
        ],
      ])
      terminal.print(bold("Plugins"))
      for (const line of table(
        ["name", "version", "provides"],
        facts.plugins.map(({ name, version: v, provides }) => [
          name,
          v,
          Object.entries(provides)
            .map(([slot, names]) => `${dim(slot)} ${names.join(", ")}`)
            .join("; "),
        ]),
      ))
        terminal.print(line)
    }),
})
