import { createRequire } from "node:module"
import { SlothError } from "@sloth/core"

type Native = typeof import("tokenizers")

let native: Native | undefined

/** The Rust tokenizers library, loaded on first use so that programs which need no tokenizer start without it. */
export const nativeTokenizers = (): Native => {
  if (native === undefined) {
    try {
      native = createRequire(import.meta.url)("tokenizers") as Native
    } catch (cause) {
      throw new SlothError("SLOTH_TOKENIZER_NATIVE", {
        what: `The tokenizers library has no binary that runs here (${process.platform}, ${process.arch}).`,
        next: "Install the package again on this machine; Linux, macOS and Windows on x64 and arm64 are supported.",
        fields: { platform: process.platform, arch: process.arch },
        cause,
      })
    }
  }
  return native
}
