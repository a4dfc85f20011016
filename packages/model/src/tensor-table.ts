/**
 * Where one stored tensor lies on disk.
 *
 * **Shapes**: row-major, the PyTorch order (`[out, in]` for a linear layer), also for GGUF whose file order is reversed.
 */
export interface TensorEntry {
  readonly name: string
  /** Type name as the file format spells it: `F32`, `F16`, `BF16`, `Q4_1`, ... */
  readonly dtype: string
  readonly shape: readonly number[]
  /** The file that holds the data. */
  readonly path: string
  /** Absolute byte offset of the data in that file. */
  readonly offset: number
  /** Length of the data in bytes. */
  readonly bytes: number
}

/** Tensor data for a writer: the bytes, or a function that makes them only when their turn comes. */
export type TensorData =
  | Uint8Array
  | (() => Uint8Array | Promise<Uint8Array> | AsyncIterable<Uint8Array> | Iterable<Uint8Array>)
