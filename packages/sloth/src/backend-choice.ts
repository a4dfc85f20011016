import { SlothError } from "@sloth/core"
import type { Backend, BackendAvailability, BackendOptions, Logger, PluginRegistry } from "@sloth/core"

/** A backend of the composition and whether it can run here. */
export interface BackendReport {
  readonly name: string
  readonly availability: BackendAvailability
}

/** Which backend is used and why. */
export interface BackendChoice {
  readonly name: string
  /** True when no native backend could run and the TypeScript one stands in. */
  readonly fallback: boolean
  /** What the fallback costs, for people; undefined when a native backend runs. */
  readonly warning: string | undefined
  /** Every backend of the composition, in the order of preference. */
  readonly backends: readonly BackendReport[]
}

/** The backend that runs everywhere. */
const REFERENCE = "reference"

/** Looks which backends can run here, without opening any. */
export const probeBackends = (registry: PluginRegistry): Promise<readonly BackendReport[]> =>
  Promise.all(
    registry.list("backends").map(async (factory): Promise<BackendReport> => {
      try {
        return { name: factory.name, availability: await factory.probe() }
      } catch (error) {
        return {
          name: factory.name,
          availability: { available: false, reason: error instanceof Error ? error.message : String(error) },
        }
      }
    }),
  )

/**
 * Chooses a backend: the named one, else the first that can run here in the order of the plugins, else the TypeScript reference backend with a warning.
 * Errors: SLOTH_PLUGIN_UNKNOWN_ID, SLOTH_BACKEND_UNAVAILABLE for a named one that cannot run, SLOTH_BACKEND_NONE.
 */
export const chooseBackend = async (registry: PluginRegistry, wanted?: string): Promise<BackendChoice> => {
  if (wanted !== undefined) registry.get("backends", wanted)
  const backends = await probeBackends(registry)
  if (wanted !== undefined) {
    const { availability } = backends.find((report) => report.name === wanted)!
    if (!availability.available)
      throw new SlothError("SLOTH_BACKEND_UNAVAILABLE", {
        what: `The backend "${wanted}" cannot run here.`,
        why: availability.reason,
        next: "Leave the backend out to take the best one that can.",
        fields: { backend: wanted },
      })
    return { name: wanted, fallback: false, warning: undefined, backends }
  }
  const best = backends.find(({ name, availability }) => name !== REFERENCE && availability.available)
  if (best !== undefined) return { name: best.name, fallback: false, warning: undefined, backends }
  const reasons = backends.flatMap(({ name, availability }) =>
    availability.available ? [] : [`${name}: ${availability.reason}`],
  )
  if (!backends.some(({ name }) => name === REFERENCE))
    throw new SlothError("SLOTH_BACKEND_NONE", {
      what: "No backend can run here.",
      why: reasons.join(" ") || "No plugin provides one.",
      next: "Add `cpu()` or `reference()` of @sloth/sloth to the plugins.",
      fields: { backends: backends.map(({ name }) => name) },
    })
  return {
    name: REFERENCE,
    fallback: true,
    warning:
      "No native kernels: everything runs in plain TypeScript on one thread, which is exact but tens to hundreds of times slower." +
      (reasons.length === 0 ? "" : ` ${reasons.join(" ")}`),
    backends,
  }
}

/** Opens the chosen backend; a fallback is said loudly. */
export const openBackend = async (
  registry: PluginRegistry,
  options: BackendOptions & { readonly backend?: string },
  logger: Logger,
): Promise<{ readonly backend: Backend; readonly choice: BackendChoice }> => {
  const choice = await chooseBackend(registry, options.backend)
  if (choice.warning !== undefined) logger.warn("SLOTH_BACKEND_FALLBACK", choice.warning)
  const { backend: _, ...rest } = options
  return { backend: await registry.get("backends", choice.name).create(rest), choice }
}
