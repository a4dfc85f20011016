import { createHash } from "node:crypto"
import { SlothError } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import { weightFormat, type Tensor } from "@sloth/tensor"

const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** The f32 values of encoded bytes, as bytes. */
const decoded = (bytes: Uint8Array, format: string): Uint8Array => {
  const f = weightFormat(format)
  const floats = new Float32Array((bytes.length / f.blockBytes) * f.blockSize)
  f.dequantizeRow(bytes, floats, floats.length)
  return new Uint8Array(floats.buffer)
}

/**
 * Remembers what was given to a file, and compares it with what a model opened from that file holds: bit for bit, in the order and under the names the model has, so
 * that a wrong name, offset, row order or rounding shows however small it is.
 */
export class StoredTensors {
  readonly #stored = new Map<string, { readonly format: string; readonly hash: string; readonly floats?: string }>()

  /** Notes the bytes of a tensor in a weight format, rows in the model's order. */
  note(name: string, format: string, bytes: Uint8Array, vector = false): void {
    this.#stored.set(name, {
      format,
      hash: digest(bytes),
      // Vectors are turned into f32 when a model is opened.
      ...(vector && format !== "f32" ? { floats: digest(decoded(bytes, format)) } : {}),
    })
  }

  /** Compares the tensors of an opened copy; how many were equal. Errors: SLOTH_EXPORT_VERIFY, naming the first that is not, or is missing. */
  async compare(
    path: string,
    model: CausalLM,
    tensors: Iterable<readonly [name: string, tensor: Tensor]>,
  ): Promise<number> {
    const refused = (what: string, tensor: string): SlothError =>
      new SlothError("SLOTH_EXPORT_VERIFY", {
        what,
        why: "What was read back is compared with what was to be written, bit for bit.",
        next: "The file was removed. Try again; if it happens again, check the disk, and report it as a bug.",
        fields: { path, tensor },
      })
    let equal = 0
    for (const [name, tensor] of tensors) {
      const stored = this.#stored.get(name)
      if (stored === undefined) throw refused(`${path} holds ${name}, which was not written.`, name)
      const f = weightFormat(tensor.dtype)
      const bytes = await model.engine.backend.memory.read(tensor.handle, 0, (tensor.size / f.blockSize) * f.blockBytes)
      const wanted = tensor.dtype === stored.format ? stored.hash : tensor.dtype === "f32" ? stored.floats : undefined
      if (digest(bytes) !== wanted) throw refused(`${path} does not hold ${name} as it was written.`, name)
      equal++
    }
    if (equal !== this.#stored.size) {
      const seen = new Set([...tensors].map(([name]) => name))
      const missing = [...this.#stored.keys()].find((name) => !seen.has(name))!
      throw refused(`${path} lacks ${missing} when it is opened.`, missing)
    }
    return equal
  }
}

/** Weights of a model with their names, for {@link StoredTensors.compare}. */
export const weightTensors = (model: CausalLM): (readonly [string, Tensor])[] =>
  [...model.weights].map(([name, ref]) => [name, ref.tensor])

/** Adapter tensors of a model with their PEFT names, trained or not. */
export const adapterTensors = (model: CausalLM): (readonly [string, Tensor])[] =>
  [...model.linears].flatMap(([path, layer]) =>
    Object.entries(layer.adapter?.tensors ?? {}).map(
      ([suffix, tensor]) => [`base_model.model.${path}.${suffix}`, tensor] as const,
    ),
  )
