import { bytesFor, weightFormat } from "@sloth/tensor"

/** Repeatable test data: xorshift32, which no backend uses for anything. */
export class Data {
  private state: number

  constructor(seed: number) {
    this.state = (seed * 2654435761 + 1) >>> 0 || 1
  }

  /** Uniform in [0, 1). */
  next(): number {
    let x = this.state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.state = x >>> 0
    return this.state / 0x100000000
  }

  /** A whole number from 0 to below `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit)
  }

  /** Roughly normal f32 numbers with standard deviation `scale`. */
  floats(n: number, scale = 1): Float32Array {
    const out = new Float32Array(n)
    for (let i = 0; i < n; i++) out[i] = scale * 1.7 * (this.next() + this.next() + this.next() + this.next() - 2)
    return out
  }

  /** f32 numbers in [low, high). */
  between(n: number, low: number, high: number): Float32Array {
    const out = new Float32Array(n)
    for (let i = 0; i < n; i++) out[i] = low + (high - low) * this.next()
    return out
  }

  integers(n: number, limit: number): Int32Array {
    return Int32Array.from({ length: n }, () => this.below(limit))
  }

  /** The numbers 0..n-1 in random order. */
  permutation(n: number): number[] {
    const out = Array.from({ length: n }, (_, i) => i)
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1)
      ;[out[i], out[j]] = [out[j]!, out[i]!]
    }
    return out
  }

  /** A weight [rows, cols] stored in a format, and its exact values. */
  weight(code: number, rows: number, cols: number, scale = 1): { bytes: Uint8Array; values: Float32Array } {
    const format = weightFormat(code)
    const bytes = new Uint8Array(rows * bytesFor(format, cols))
    const values = new Float32Array(rows * cols)
    const rowBytes = bytes.length / rows
    for (let r = 0; r < rows; r++) {
      const row = bytes.subarray(r * rowBytes, (r + 1) * rowBytes)
      format.quantizeRow!(this.floats(cols, scale), row, cols)
      format.dequantizeRow(row, values.subarray(r * cols, (r + 1) * cols), cols)
    }
    return { bytes, values }
  }
}

/** The next multiple of a block: formats store whole ones. */
export const whole = (k: number, block: number): number => Math.ceil(k / block) * block
