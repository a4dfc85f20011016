import type { BackendOptions, Logger, Plugin, PluginRegistry, SlothPaths } from "@sloth/core"
import type { DatasetReader, ReaderRegistry } from "@sloth/data"
import type { ModelFamily } from "@sloth/model"
import type { Engine } from "@sloth/tensor"
import type { BackendChoice } from "./backend-choice.ts"
import { openBackend } from "./backend-choice.ts"

/** What the parts of a Sloth instance share: its plugins, folders and one engine that is opened when it is first needed. */
export class SlothContext {
  readonly registry: PluginRegistry
  readonly logger: Logger
  readonly paths: SlothPaths
  /** Relative paths start here. */
  readonly cwd: string
  /** True forbids downloads. */
  readonly offline: boolean
  readonly backendOptions: BackendOptions & { readonly backend?: string }
  #engine: Promise<{ engine: Engine; choice: BackendChoice }> | undefined

  constructor(options: {
    readonly registry: PluginRegistry
    readonly logger: Logger
    readonly paths: SlothPaths
    readonly cwd: string
    readonly offline: boolean
    readonly backendOptions: BackendOptions & { readonly backend?: string }
  }) {
    this.registry = options.registry
    this.logger = options.logger
    this.paths = options.paths
    this.cwd = options.cwd
    this.offline = options.offline
    this.backendOptions = options.backendOptions
  }

  /** Model families, the last registered first, so that a later plugin may take an architecture over. */
  get families(): readonly ModelFamily[] {
    return [...this.registry.list("models")].reverse() as unknown as readonly ModelFamily[]
  }

  /** The readers of dataset files, those of plugins included. */
  async readers(): Promise<ReaderRegistry> {
    const { createReaderRegistry } = await import("@sloth/data")
    return createReaderRegistry(this.registry.list("readers") as unknown as readonly DatasetReader[])
  }

  /** Name and version of every plugin, for records. */
  get versions(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.registry.plugins.map((plugin: Plugin) => [plugin.name, plugin.version]))
  }

  /** The engine on the chosen backend, with the choice; opened once. */
  opened(): Promise<{ engine: Engine; choice: BackendChoice }> {
    this.#engine ??= this.openEngine(this.backendOptions)
    return this.#engine
  }

  /** The shared engine. */
  async engine(): Promise<Engine> {
    return (await this.opened()).engine
  }

  /** An engine of the caller's own, on the backend that these options choose. */
  async openEngine(
    options: BackendOptions & { readonly backend?: string },
  ): Promise<{ engine: Engine; choice: BackendChoice }> {
    const { Engine } = await import("@sloth/tensor")
    const { backend, choice } = await openBackend(this.registry, options, this.logger)
    return { engine: new Engine(backend), choice }
  }

  /** Releases the engine, if it was opened, and the plugins. */
  async close(): Promise<void> {
    const opened = this.#engine
    this.#engine = undefined
    try {
      if (opened !== undefined) (await opened.catch(() => undefined))?.engine[Symbol.dispose]()
    } finally {
      await this.registry.close()
    }
  }
}
