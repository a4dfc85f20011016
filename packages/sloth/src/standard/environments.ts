import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { environmentLibrary } from "@sloth/rl"

/** The plugin that provides environments by name: 2048 and number-guess. */
export const environments = () =>
  definePlugin({
    name: "@sloth/rl/environments",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { environments: environmentLibrary },
  })
