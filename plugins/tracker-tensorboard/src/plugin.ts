import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { tensorboardTracker, type TensorboardOptions } from "./tracker.ts"

/** The plugin that provides the tracker "tensorboard". */
export const tensorboard = (options: TensorboardOptions = {}) =>
  definePlugin({
    name: "@sloth/tracker-tensorboard",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { trackers: [tensorboardTracker(options)] },
  })

export default tensorboard()
