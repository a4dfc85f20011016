import { createRequire } from "node:module"
import { SlothError } from "@sloth/core"
import type { JsonNode } from "./tokenizer-json.ts"

type Native = typeof import("tokenizers")

let native: Native | undefined

/** The Rust tokenizers library, loaded on first use so that programs which need no tokenizer start without it. */
const nativeTokenizers = (): Native => {
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

/** The library's pre-tokenizer. */
export type NativePreTokenizer = NonNullable<
  ReturnType<InstanceType<ReturnType<typeof nativeTokenizers>["Tokenizer"]>["getPreTokenizer"]>
>
/** The library's normalizer. */
export type NativeNormalizer = NonNullable<
  ReturnType<InstanceType<ReturnType<typeof nativeTokenizers>["Tokenizer"]>["getNormalizer"]>
>

const emptyModel = { type: "BPE", vocab: {}, merges: [] }

/** The library's normalizer, pre-tokenizer and decoder; the model stays out, so this costs well under a millisecond. */
export const nativeParts = (normalizer: JsonNode | null, preTokenizer: JsonNode | null, decoder: JsonNode | null) => {
  const { Tokenizer: Native } = nativeTokenizers()
  try {
    const native = Native.fromString(
      JSON.stringify({
        version: "1.0",
        truncation: null,
        padding: null,
        added_tokens: [],
        normalizer,
        pre_tokenizer: preTokenizer,
        post_processor: null,
        decoder,
        model: emptyModel,
      }),
    )
    return {
      normalizer: native.getNormalizer() ?? undefined,
      preTokenizer: native.getPreTokenizer() ?? undefined,
      decoder: native.getDecoder() ?? undefined,
    }
  } catch (cause) {
    throw new SlothError("SLOTH_TOKENIZER_JSON", {
      what: "tokenizer.json has a normalizer, pre-tokenizer or decoder that the tokenizers library refuses.",
      why: cause instanceof Error ? cause.message : String(cause),
      next: "Download the tokenizer again, or check that it was made for tokenizers 0.23 or older.",
      cause,
    })
  }
}

/** Metaspace with `prepend_scheme: "first"` adds its mark only at the beginning of the whole text. */
export const withoutFirstPrefix = (node: JsonNode | null): JsonNode | null => {
  const change = (n: JsonNode): JsonNode =>
    n.type === "Metaspace" && n["prepend_scheme"] === "first"
      ? { ...n, prepend_scheme: "never" }
      : n.type === "Sequence"
        ? { ...n, pretokenizers: (n["pretokenizers"] as JsonNode[]).map(change) }
        : n
  return node === null ? null : change(node)
}
