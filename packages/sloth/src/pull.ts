import { join } from "node:path"
import type { HubPlan, HubProgress } from "@sloth/model"
import type { SlothContext } from "./context.ts"

/** Options of `sloth.pull`. */
export interface PullOptions {
  /** Told before anything is downloaded; false downloads nothing. */
  readonly onPlan?: (plan: HubPlan) => boolean | void
  readonly onProgress?: (progress: HubProgress) => void
  readonly signal?: AbortSignal
}

/**
 * Downloads a model of the hub, or what of it is missing, and verifies hashes: `org/name[@revision][:file]`. Offline it only checks that all is there.
 * Errors: SLOTH_HUB_*, SLOTH_DISK_SPACE.
 */
export const pullModel = async (context: SlothContext, spec: string, options: PullOptions = {}): Promise<HubPlan> => {
  const { downloadHub, planHubModel } = await import("@sloth/model")
  const settings = {
    cacheDir: join(context.paths.cache, "hub"),
    signal: options.signal,
    onProgress: options.onProgress,
    ...(context.offline ? { offline: true } : {}),
  }
  const plan = await planHubModel(spec, settings)
  if (options.onPlan?.(plan) === false) return plan
  return downloadHub(plan, settings)
}
