import { definePlugin, PLUGIN_API_VERSION, type BackendFactory, type BackendOptions } from "@sloth/core"

/** The plain TypeScript backend: runs everywhere, exact and slow; Sloth falls back to it where no native backend can run. */
export const referenceFactory = {
  name: "reference",
  probe: () => ({ available: true, description: "plain TypeScript, one thread" }),
  create: async (options: BackendOptions) => (await import("@sloth/tensor")).createReferenceBackend(options),
} as const satisfies BackendFactory

/** The plugin that provides the backend "reference". */
export const reference = () =>
  definePlugin({
    name: "@sloth/tensor",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { backends: [referenceFactory] },
  })
