import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { ggufExporters, ggufLoraExporter, peftExporter, safetensorsExporters } from "@sloth/export"

/** The plugin that provides the export formats: peft, safetensors-*, gguf-* and gguf-lora. */
export const exporters = () =>
  definePlugin({
    name: "@sloth/export",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { exporters: [peftExporter, ggufLoraExporter, ...ggufExporters, ...safetensorsExporters] },
  })
