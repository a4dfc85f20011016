import type { ConfigSchema, Logger, Precision } from "@sloth/core"
import type { MethodFlags } from "./method-flags.ts"
import type { Terminal } from "./terminal/terminal.ts"
/** A word after the command that is not a flag. */
export interface Positional {
  readonly name: string
  readonly description: string
  readonly required?: boolean
  /** Takes all remaining words. */
  readonly many?: boolean
}

/** A command line that works, for help. */
export interface Example {
  readonly command: string
  readonly description: string
}

/** Settings whose flags are read but decoded elsewhere, because a configuration file has its say too. */
export interface SettingsFlags {
  readonly title: string
  readonly schema: ConfigSchema
}

/** What every command is given besides its own options. */
export interface CommandInput<O> {
  /** Decoded flags. */
  readonly options: O
  readonly positionals: readonly string[]
  /** Flags of {@link SettingsFlags} that were given, parsed; empty where there are none. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Flags of {@link MethodFlags} that were given, parsed. */
  readonly methodSettings: Readonly<Record<string, unknown>>
  /** Flags of the environment that were given, parsed. */
  readonly environmentSettings: Readonly<Record<string, unknown>>
  /** Flags that say which plugins and which backend to use; empty for commands that need none. */
  readonly session: SessionFlags
  readonly terminal: Terminal
  readonly logger: Logger
  readonly debug: boolean
  readonly cwd: string
}

/** A plugin with the folder from where it is looked for. */
export interface PluginPlace {
  readonly specifier: string
  readonly from: string
}

/** Flags of every command that works with models. */
export interface SessionFlags {
  /** False for none, not even that of the folder. */
  readonly config?: string | false
  readonly plugin?: readonly (string | PluginPlace)[]
  readonly backend?: string
  readonly isa?: string
  readonly threads?: number
  readonly memoryBudget?: number
  readonly precision?: Precision
  readonly offline?: boolean
}

/** A command of the `sloth` program: its flags are the keys of `options`. */
export interface CliCommand<O = never> {
  readonly name: string
  /** One line for the list of commands. */
  readonly summary: string
  /** What it does, for its own help. */
  readonly description: string
  readonly positionals?: readonly Positional[]
  readonly options: ConfigSchema
  readonly settings?: SettingsFlags
  /** True when it trains by a method: it gets the flags of the method's settings. */
  readonly takesMethod?: boolean
  /** The settings of the method, once it is known. */
  readonly method?: MethodFlags
  /** The settings of the environment, once it is known. */
  readonly environment?: MethodFlags
  /** True when it works with models: it gets the session flags. */
  readonly session: boolean
  /** One-letter forms by option key. */
  readonly aliases?: Readonly<Record<string, string>>
  /** An option that may stand without a value, with the value it then has. */
  readonly optionalValues?: Readonly<Record<string, string>>
  readonly examples: readonly Example[]
  /** What stands below the flags in help: key and text. */
  readonly notes?: readonly string[]
  /** Runs it; a returned number is the exit status. */
  run(input: CommandInput<O>): Promise<number | void>
}

/** Types a command by its options schema. */
export const defineCommand = <const S extends ConfigSchema>(
  command: Omit<CliCommand<S["Type"]>, "options"> & { readonly options: S },
): CliCommand => command as unknown as CliCommand
