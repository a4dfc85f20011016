import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { llamaFamily } from "@sloth/model-llama"

/** The plugin that provides the Llama family: Llama 1 to 3.x, Mistral, TinyLlama, SmolLM2 and SmolLM3. */
export const llama = () =>
  definePlugin({
    name: "@sloth/model-llama",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { models: [llamaFamily] },
  })
