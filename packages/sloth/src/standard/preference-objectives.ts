import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { preferenceObjectives as objectives } from "@sloth/rl"

/** The plugin that provides the methods that learn from comparisons: dpo, orpo, kto, cpo, simpo, alphapo, bco and tpo; and that train reward models: reward and prm. */
export const preferenceObjectives = () =>
  definePlugin({
    name: "@sloth/rl/preference",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { objectives },
  })
