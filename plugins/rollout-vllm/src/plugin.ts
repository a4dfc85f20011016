import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { vllmSettings, type VllmRolloutOptions } from "./settings.ts"
import { VllmRollout, type VllmRolloutContext } from "./vllm-rollout.ts"

/**
 * Makes {@link VllmRollout}s: the rollout engine "vllm". Errors: SLOTH_CONFIG_INVALID at once for wrong settings; `create` has those of {@link VllmRollout.open}.
 */
export const vllmRollout = (options: VllmRolloutOptions = {}) => {
  const settings = vllmSettings(options)
  return {
    name: "vllm",
    elsewhere: true,
    create: (_model: unknown, context: VllmRolloutContext): Promise<VllmRollout> => VllmRollout.open(settings, context),
  } as const
}

/** The plugin that provides the rollout engine "vllm". */
export const rolloutVllm = (options: VllmRolloutOptions = {}) =>
  definePlugin({
    name: "@sloth/rollout-vllm",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { rollouts: [vllmRollout(options)] },
  })

export default rolloutVllm()
