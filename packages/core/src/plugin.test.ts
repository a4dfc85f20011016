import { describe, expect, test } from "bun:test"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import {
  configurePlugin,
  consoleLogger,
  definePlugin,
  field,
  isPlugin,
  isSlothError,
  registerPlugins,
  registerPluginsEffect,
  SlothError,
  slothVersion,
  withDefault,
} from "./index.ts"
import type {
  Backend,
  BackendFactory,
  BackendOf,
  ConfigSchema,
  FormatOf,
  MethodOf,
  Plugin,
  PluginProvides,
  ProvidedObjective,
  Reward,
} from "./index.ts"

const base = { version: "1.0.0", apiVersion: 1, sloth: "^0.1.0" } as const
const plugin = (name: string, more: Record<string, unknown> = {}): Plugin =>
  definePlugin({ ...base, name, provides: {}, ...more } as Parameters<typeof definePlugin>[0]) as Plugin

const errorOf = async (run: () => unknown): Promise<SlothError> => {
  try {
    await run()
  } catch (error) {
    if (isSlothError(error)) return error
    throw error
  }
  throw new Error("nothing was refused")
}
const codeOf = async (...plugins: unknown[]): Promise<string> =>
  (await errorOf(() => registerPlugins(plugins as Plugin[]))).code

const reward = (name: string): Reward => ({ name, score: (samples) => samples.map(() => 1) })

describe("definePlugin", () => {
  test("gives a frozen plain object with its brand", () => {
    const made = definePlugin({ ...base, name: "a", provides: { rewards: [reward("r")] } })
    expect(Object.isFrozen(made)).toBe(true)
    expect(Object.isFrozen(made.provides)).toBe(true)
    expect(Object.isFrozen(made.provides.rewards)).toBe(true)
    expect(isPlugin(made)).toBe(true)
    expect(isPlugin({ ...made })).toBe(false)
    expect(Object.keys(made).sort()).toEqual(["apiVersion", "name", "provides", "sloth", "version"])
  })

  test("is recognised when another copy of the package made it", () => {
    const foreign = Object.defineProperty(
      { ...base, name: "foreign", provides: {} },
      Symbol.for("@sloth/core/plugin"),
      {
        value: 1,
      },
    )
    expect(isPlugin(foreign)).toBe(true)
  })

  test("names are inferred as literals", () => {
    const sft = { name: "sft" } as const satisfies ProvidedObjective
    const cpuFactory = {
      name: "cpu",
      probe: () => ({ available: true }),
      create: (): Backend => {
        throw new Error("not opened in this test")
      },
    } as const satisfies BackendFactory
    const train = definePlugin({ ...base, name: "train", provides: { objectives: [sft, { name: "cpt" }] } })
    const cpu = definePlugin({ ...base, name: "cpu", provides: { backends: [cpuFactory] } })
    const gguf = definePlugin({
      ...base,
      name: "gguf",
      provides: { exporters: [{ name: "gguf", export: (model: { layers: number }, to: string) => [model, to] }] },
    })
    const list = [train, cpu, gguf] as const
    type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
    const exact: [
      Equal<MethodOf<typeof list>, "sft" | "cpt">,
      Equal<FormatOf<typeof list>, "gguf">,
      Equal<BackendOf<typeof list>, "cpu">,
      Equal<MethodOf<typeof train>, "sft" | "cpt">,
      Equal<MethodOf<typeof cpu>, never>,
      Equal<(typeof train)["name"], "train">,
    ] = [true, true, true, true, true, true]
    expect(exact.length).toBe(6)
    // a list built at run time keeps `string`
    const dynamic: string = "" as MethodOf<readonly Plugin[]>
    expect(dynamic).toBe("")
    // @ts-expect-error a reward must score
    definePlugin({ ...base, name: "wrong", provides: { rewards: [{ name: "r" }] } })
    // @ts-expect-error a slot that does not exist
    definePlugin({ ...base, name: "wrong", provides: { gadgets: [] } })
    definePlugin({
      ...base,
      name: "typed-setup",
      config: Schema.Struct({ threads: Schema.Int }),
      provides: {},
      // @ts-expect-error the settings of setup have the type of the schema
      setup: (_, config) => Effect.succeed(config.theads),
    })
  })
})

describe("checks at registration", () => {
  test("shape: all problems of a plugin at once", async () => {
    const error = await errorOf(() =>
      registerPlugins([
        plugin("bad", {
          version: 3,
          setup: 5,
          config: {},
          requires: "x",
          provides: {
            rewards: [{ name: "r" }, null],
            gadgets: [],
            models: {},
            backends: [{ name: "", probe: () => true }],
          } as unknown as PluginProvides,
        }),
      ]),
    )
    expect(error.code).toBe("SLOTH_PLUGIN_SHAPE")
    expect((error.fields["problems"] as string[]).map((problem) => problem.split(";")[0])).toEqual([
      '"version" must be text',
      '"requires" must be a list of text',
      '"setup" must be a function',
      '"config" must be an Effect Schema',
      '"provides.rewards[0].score" must be a function',
      '"provides.rewards[1]" must be an object',
      '"provides.gadgets" is not a slot',
      '"provides.models" must be a list',
      '"provides.backends[0].name" must be text',
      '"provides.backends[0].create" must be a function',
    ])
    for (const value of [null, 5, { name: "x" }, () => plugin("f")])
      expect(await codeOf(value)).toBe("SLOTH_PLUGIN_SHAPE")
  })

  test("each check has its code", async () => {
    expect(await codeOf(plugin("a", { apiVersion: 2 }))).toBe("SLOTH_PLUGIN_API_VERSION")
    expect(await codeOf(plugin("a", { sloth: "^99.0.0" }))).toBe("SLOTH_PLUGIN_VERSION")
    expect(await codeOf(plugin("a", { sloth: "newest" }))).toBe("SLOTH_PLUGIN_VERSION")
    expect(await codeOf(plugin("a", { version: "one" }))).toBe("SLOTH_PLUGIN_VERSION")
    expect(await codeOf(plugin("a", { requires: ["b"] }))).toBe("SLOTH_PLUGIN_REQUIRES")
    expect(await codeOf(plugin("a", { requires: ["@x/b@^2.0.0"] }), plugin("@x/b"))).toBe("SLOTH_PLUGIN_REQUIRES")
    expect(await codeOf(plugin("a", { requires: ["b"] }), plugin("b", { requires: ["a"] }))).toBe(
      "SLOTH_PLUGIN_REQUIRES",
    )
    expect(await codeOf(plugin("a"), plugin("a"))).toBe("SLOTH_PLUGIN_DUPLICATE")
    expect(await codeOf(configurePlugin(plugin("a"), { x: 1 }))).toBe("SLOTH_PLUGIN_CONFIG")
    expect((await errorOf(() => registerPlugins([plugin("a")], { configs: { b: {} } }))).code).toBe(
      "SLOTH_PLUGIN_CONFIG",
    )
  })

  test("they come in order: shape, contract, version, requirements, duplicates, settings", async () => {
    const first = { rewards: [reward("r")] }
    const wrongs: [string, Record<string, unknown>][] = [
      ["SLOTH_PLUGIN_SHAPE", { setup: 1 }],
      ["SLOTH_PLUGIN_API_VERSION", { apiVersion: 9 }],
      ["SLOTH_PLUGIN_VERSION", { sloth: "^9.0.0" }],
      ["SLOTH_PLUGIN_REQUIRES", { requires: ["missing"] }],
      ["SLOTH_PLUGIN_DUPLICATE", { provides: first }],
      ["SLOTH_PLUGIN_CONFIG", { input: { x: 1 } }],
    ]
    for (let from = 0; from < wrongs.length; from++) {
      const all = Object.assign({}, ...wrongs.slice(from).map(([, part]) => part)) as Record<string, unknown>
      expect(await codeOf(plugin("a", { provides: first }), plugin("b", all))).toBe(wrongs[from]?.[0] ?? "")
    }
  })

  test("a later plugin may override an id when it says so", async () => {
    const mine = reward("r")
    const family = (name: string) => ({ name, architectures: ["Llama"], ggufArchitectures: [] })
    expect(await codeOf(plugin("a", { provides: { rewards: [mine, mine] } }))).toBe("SLOTH_PLUGIN_DUPLICATE")
    expect(
      await codeOf(
        plugin("a", { provides: { models: [family("x")] } }),
        plugin("b", { provides: { models: [family("y")] } }),
      ),
    ).toBe("SLOTH_PLUGIN_DUPLICATE")
    await using registry = await registerPlugins([
      plugin("a", { provides: { rewards: [reward("r")], models: [family("x")] } }),
      plugin("b", { override: true, provides: { rewards: [mine], models: [family("y")] } }),
    ])
    expect(registry.get("rewards", "r")).toBe(mine)
    expect(registry.ownerOf("rewards", "r")?.name).toBe("b")
    expect(registry.list("rewards").length).toBe(1)
    expect(registry.findModel({ architecture: "Llama" })?.name).toBe("y")
    expect(registry.findModel({ ggufArchitecture: "llama" })).toBeUndefined()
  })

  test("settings are decoded, with those of the project over those in code", async () => {
    const config = Schema.Struct({
      threads: field.int({ description: "Threads.", min: 1 }).pipe(withDefault(2)),
      name: field.text({ description: "Name." }).pipe(withDefault("x")),
    })
    const made = configurePlugin(plugin("p", { config }), { threads: 4, name: "code" })
    await using registry = await registerPlugins([made], { configs: { p: { name: "file" } } })
    expect(registry.config("p")).toEqual({ threads: 4, name: "file" })
    const error = await errorOf(() => registerPlugins([made], { configs: { p: { threads: 0, nmae: "" } } }))
    expect(error.code).toBe("SLOTH_PLUGIN_CONFIG")
    expect(error.message).toContain("threads: expected an integer at least 1, received 0")
    expect(error.message).toContain('nmae: unknown key; did you mean "name"?')
  })

  test("an unknown id is answered with what there is", async () => {
    await using registry = await registerPlugins([
      plugin("a", { provides: { rewards: [reward("length"), reward("math")] } }),
    ])
    const error = await errorOf(() => registry.get("rewards", "lenght"))
    expect(error.code).toBe("SLOTH_PLUGIN_UNKNOWN_ID")
    expect(error.message).toContain('Did you mean "length"?')
    expect((await errorOf(() => registry.get("backends", "cuda"))).message).toContain("No plugin here provides any.")
  })
})

describe("set-up and tear-down", () => {
  class Clock extends Context.Service<Clock, { readonly now: number }>()("test/Clock") {}
  const scoped = (log: string[], name: string, more: Record<string, unknown> = {}): Plugin =>
    plugin(name, {
      setup: () =>
        Effect.acquireRelease(
          Effect.sync(() => log.push(`+${name}`)),
          () => Effect.sync(() => log.push(`-${name}`)),
        ),
      ...more,
    })

  test("in order of requirement, released in reverse", async () => {
    const log: string[] = []
    const registry = await registerPlugins([
      scoped(log, "c", { requires: ["a"] }),
      scoped(log, "a"),
      plugin("layer", {
        setup: () =>
          Layer.effect(
            Clock,
            Effect.acquireRelease(
              Effect.sync(() => {
                log.push("+layer")
                return { now: 5 }
              }),
              () => Effect.sync(() => log.push("-layer")),
            ),
          ),
      }),
    ])
    expect(log).toEqual(["+a", "+c", "+layer"])
    expect(Context.get(registry.context as Context.Context<Clock>, Clock).now).toBe(5)
    await registry.close()
    await registry.close()
    expect(log).toEqual(["+a", "+c", "+layer", "-layer", "-c", "-a"])
  })

  test("a later failure releases what was acquired before it", async () => {
    const failures: (() => unknown)[] = [
      () => Effect.fail(new Error("no device")),
      () => {
        throw new Error("no device")
      },
      () => Layer.effect(Clock, Effect.fail(new Error("no device"))),
    ]
    for (const setup of failures) {
      const log: string[] = []
      const error = await errorOf(() =>
        registerPlugins([scoped(log, "a"), scoped(log, "b"), plugin("bad", { setup }), scoped(log, "d")]),
      )
      expect(error.code).toBe("SLOTH_PLUGIN_SETUP")
      expect(error.message).toContain("bad")
      expect(error.message).toContain("no device")
      expect(log).toEqual(["+a", "+b", "-b", "-a"])
    }
    expect(await codeOf(plugin("a", { setup: () => 5 }))).toBe("SLOTH_PLUGIN_SETUP")
  })

  test("what a failing set-up had acquired itself is released too", async () => {
    const log: string[] = []
    const half = Effect.gen(function* () {
      yield* Effect.acquireRelease(
        Effect.sync(() => log.push("+half")),
        () => Effect.sync(() => log.push("-half")),
      )
      return yield* Effect.fail(new Error("then it failed"))
    })
    expect(await codeOf(scoped(log, "a"), plugin("half", { setup: () => half }))).toBe("SLOTH_PLUGIN_SETUP")
    expect(log).toEqual(["+a", "+half", "-half", "-a"])
  })

  test("nothing is acquired when a check fails", async () => {
    const log: string[] = []
    await codeOf(scoped(log, "a"), plugin("b", { apiVersion: 7 }))
    expect(log).toEqual([])
  })

  test("a release that fails does not keep the others from theirs", async () => {
    const log: string[] = []
    const registry = await registerPlugins([
      scoped(log, "a"),
      plugin("stuck", { setup: () => Effect.acquireRelease(Effect.void, () => Effect.die(new Error("stuck"))) }),
      scoped(log, "c"),
    ])
    const error = await errorOf(() => registry.close())
    expect(error.code).toBe("SLOTH_PLUGIN_TEARDOWN")
    expect(error.message).toContain("stuck")
    expect(log).toEqual(["+a", "+c", "-c", "-a"])
  })

  test("capabilities are arguments: logger with the plugin's name, folders, version, settings", async () => {
    const lines: string[] = []
    let seen: unknown[] = []
    await using registry = await registerPlugins(
      [
        plugin("p", {
          config: Schema.Struct({ n: Schema.Int }) as ConfigSchema,
          input: { n: 3 },
          setup: (
            capabilities: { logger: { info(m: string): void }; paths: { project: string }; slothVersion: string },
            config: unknown,
          ) =>
            Effect.sync(() => {
              capabilities.logger.info("here")
              seen = [capabilities.paths.project, capabilities.slothVersion, config]
            }),
        }),
      ],
      {
        logger: consoleLogger({ write: (line) => lines.push(line) }),
        paths: { project: "/project", runs: "/project/runs", cache: "/cache" },
      },
    )
    expect(registry.plugins.length).toBe(1)
    expect(lines).toEqual(["[p] here"])
    expect(seen).toEqual(["/project", slothVersion(), { n: 3 }])
  })

  test("the Effect form releases with its scope and fails with the coded error", async () => {
    const log: string[] = []
    const names = await Effect.runPromise(
      Effect.scoped(
        Effect.map(registerPluginsEffect([scoped(log, "a")]), (registry) => registry.plugins.map((p) => p.name)),
      ),
    )
    expect(names).toEqual(["a"])
    expect(log).toEqual(["+a", "-a"])
    const code = await Effect.runPromise(
      Effect.scoped(registerPluginsEffect([plugin("a", { apiVersion: 3 })])).pipe(
        Effect.map(() => "registered"),
        Effect.catch((error) => Effect.succeed(error.code)),
      ),
    )
    expect(code).toBe("SLOTH_PLUGIN_API_VERSION")
  })
})
