import { definePlugin, PLUGIN_API_VERSION, type BackendOptions } from "@sloth/core"

import { createCpuBackend } from "./backend.ts"
import { probeCpu } from "./cpu-info.ts"

/** The plugin that provides the backend "cpu"; `options` are defaults that the options of a run override. */
export const cpu = (options: BackendOptions = {}) =>
  definePlugin({
    name: "@sloth/kernels-cpu",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: {
      backends: [
        {
          name: "cpu",
          probe: probeCpu,
          create: (given: BackendOptions) => {
            const set = Object.entries(given).filter(([, value]) => value !== undefined)
            return createCpuBackend({ ...options, ...Object.fromEntries(set) })
          },
        },
      ],
    },
  })
