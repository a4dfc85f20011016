import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { dft, pretraining, sft as supervised } from "@sloth/train"

/** The plugin that provides the methods "sft" (supervised fine-tuning), "pretrain" (continued pretraining) and "dft" (dynamic fine-tuning). */
export const sft = () =>
  definePlugin({
    name: "@sloth/train",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: {
      objectives: [
        { ...supervised, name: "sft" },
        { ...pretraining, name: "pretrain" },
        { ...dft, name: "dft" },
      ],
    },
  })
