import { SlothError } from "@sloth/core"
import { interleavedRow, Lora, type CausalLM } from "@sloth/model"
import { weightFormat, type Tensor, type WeightRef } from "@sloth/tensor"

/** The f32 values a weight acts with: W, or W + s · B · A where a LoRA is attached. Made on the backend; the caller disposes it. */
export const effectiveWeight = (model: CausalLM, ref: WeightRef): Tensor => {
  const { engine } = model
  const { kernels } = engine.backend
  const cols = ref.shape.at(-1)!
  const rows = ref.shape.reduce((a, b) => a * b, 1) / cols
  const out = engine.unscoped(ref.shape)
  if (ref.tensor.dtype === "f32") kernels.copy(out.handle, ref.tensor.handle, out.size * 4)
  else kernels.dequantize(out.handle, ref.tensor.handle, weightFormat(ref.tensor.dtype).code, rows, cols)
  const layer = model.linears.get(ref.name.replace(/\.weight$/, ""))
  const adapter = layer?.weight === ref ? layer.adapter : undefined
  if (adapter === undefined) return out
  if (!(adapter instanceof Lora)) {
    out.dispose()
    throw new SlothError("SLOTH_EXPORT_UNSUPPORTED", {
      what: `An adapter of kind "${adapter.kind}" cannot be merged.`,
      next: "Export the adapter by itself.",
      fields: { kind: adapter.kind },
    })
  }
  kernels.matmul(
    out.handle,
    adapter.b.handle,
    adapter.a.handle,
    rows,
    cols,
    adapter.a.shape[0]!,
    0,
    0,
    adapter.scale,
    1,
  ) // [out, in] += s · B · A
  return out
}

/** Bytes of a weight in a format, rows in the model's order. */
export const encodedWeight = async (model: CausalLM, ref: WeightRef, format: string): Promise<Uint8Array> => {
  const { engine } = model
  const f = weightFormat(format)
  const cols = ref.shape.at(-1)!
  const rows = ref.shape.reduce((a, b) => a * b, 1) / cols
  using values = effectiveWeight(model, ref)
  if (format === "f32") return engine.backend.memory.read(values.handle, 0, values.size * 4)
  using encoded = engine.unscoped(ref.shape, format)
  engine.backend.kernels.quantize(encoded.handle, values.handle, f.code, rows, cols)
  return await engine.backend.memory.read(encoded.handle, 0, (values.size / f.blockSize) * f.blockBytes)
}

/** Puts "rotate half" rows into GGUF's interleaved order, heads of as many rows as `headDim`. */
export const interleaveRows = (bytes: Uint8Array, rows: number, headDim: number): Uint8Array => {
  const rowBytes = bytes.length / rows
  const out = new Uint8Array(bytes.length)
  for (let row = 0; row < rows; row++)
    out.set(bytes.subarray(row * rowBytes, (row + 1) * rowBytes), interleavedRow(row, headDim) * rowBytes)
  return out
}
