import { readFileSync } from "node:fs"
import { join } from "node:path"
import { readSafetensors } from "@sloth/model"

/** The folder of committed golden values. */
export const goldenDir = join(import.meta.dirname, "..", "golden")

/** A JSON file of golden values. */
export const goldenJson = <T>(...path: string[]): T => JSON.parse(readFileSync(join(goldenDir, ...path), "utf8")) as T

/** The f32 tensors of a small safetensors file. */
export const floatsOf = (path: string): Map<string, { shape: readonly number[]; values: Float32Array }> => {
  const file = readFileSync(path)
  return new Map(
    readSafetensors(path).tensors.map((t) => [
      t.name,
      {
        shape: t.shape,
        values: new Float32Array(file.buffer.slice(file.byteOffset + t.offset, file.byteOffset + t.offset + t.bytes)),
      },
    ]),
  )
}

/** |a - b| / |b| of two vectors. */
export const relativeError = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let diff = 0
  let norm = 0
  for (let i = 0; i < b.length; i++) {
    diff += (a[i]! - b[i]!) ** 2
    norm += b[i]! ** 2
  }
  return Math.sqrt(diff) / Math.max(Math.sqrt(norm), 1e-12)
}
