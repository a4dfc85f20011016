import { resolve } from "node:path"
import { consoleLogger, registerPlugins, slothPaths } from "@sloth/core"
import type { BackendOf, Logger, Plugin, Precision } from "@sloth/core"
import { SlothContext } from "./context.ts"
import { Sloth } from "./sloth.ts"

/** What a Sloth instance is made of. */
export interface SlothOptions<P extends readonly Plugin[]> {
  /** What it can do; `standardPlugins()` is everything that comes with Sloth. */
  readonly plugins: P
  /** Backend to compute on; the first of the plugins' that can run here when absent, and plain TypeScript where none can. */
  readonly backend?: BackendOf<P>
  /** Threads of the backend; all cores when absent. */
  readonly threads?: number
  /** Forces an instruction set. */
  readonly isa?: string
  /** Memory the backend may take, in bytes. */
  readonly memoryBudget?: number
  /**
   * Precision of the large products: f32 when absent. bf16 rounds operands (sums in f32); int8 rounds activations that meet Q4_0, Q4_1 and Q8_0 weights and is for
   * inference. SLOTH_BACKEND_PRECISION where the machine lacks the instructions. A training configuration's own `precision` counts over it.
   */
  readonly precision?: Precision
  /** Where warnings go; stderr when absent. */
  readonly logger?: Logger
  /** Relative paths start here; the working folder when absent. */
  readonly cwd?: string
  /** Folder for runs, `runs` when absent. */
  readonly runs?: string
  /** Folder for downloads and prepared data. */
  readonly cache?: string
  /** Downloads nothing. */
  readonly offline?: boolean
  /** Settings by plugin name. */
  readonly pluginConfig?: Readonly<Record<string, unknown>>
}

/**
 * Composes Sloth from plugins: `await using sloth = await createSloth({ plugins: standardPlugins() })`. The backend opens when it is first needed.
 * Errors: SLOTH_PLUGIN_*.
 */
export const createSloth = async <const P extends readonly Plugin[]>(options: SlothOptions<P>): Promise<Sloth<P>> => {
  const logger = options.logger ?? consoleLogger({ level: "warn" })
  const cwd = resolve(options.cwd ?? process.cwd())
  const paths = slothPaths({
    project: cwd,
    ...(options.runs === undefined ? {} : { runs: options.runs }),
    ...(options.cache === undefined ? {} : { cache: options.cache }),
  })
  const registry = await registerPlugins(options.plugins, {
    logger,
    paths,
    ...(options.pluginConfig === undefined ? {} : { configs: options.pluginConfig }),
  })
  const { backend, threads, isa, memoryBudget, precision } = options
  return new Sloth<P>(
    new SlothContext({
      registry,
      logger,
      paths,
      cwd,
      offline: options.offline === true,
      backendOptions: { ...(backend === undefined ? {} : { backend }), threads, isa, memoryBudget, precision },
    }),
  )
}
