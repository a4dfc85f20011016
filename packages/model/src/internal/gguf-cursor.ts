import { SlothError } from "@sloth/core"
import type { ByteSource } from "./byte-source.ts"

/** Metadata and tensor list together; real files stay below 50 MB. */
const maxHeaderBytes = 512 << 20
const firstRead = 1 << 20

/** Makes a coded error about a damaged GGUF file. */
export const ggufError = (name: string, path: string, what: string, fields: Record<string, unknown> = {}): SlothError =>
  new SlothError(`SLOTH_GGUF_${name}`, {
    what: `${path}: ${what}`,
    next: "The file is damaged, incomplete or not GGUF; download or convert it again.",
    fields: { path, ...fields },
  })

/** Reads a GGUF header forwards. Memory grows with what was really read from the file, never with what a field claims. */
export class GgufCursor {
  readonly source: ByteSource
  position = 0
  private buffer: Buffer = Buffer.alloc(0)

  constructor(source: ByteSource) {
    this.source = source
  }

  /** Bytes between here and the end of the file. */
  get remaining(): number {
    return this.source.size - this.position
  }

  /** Makes `count` bytes available and steps over them; returns where they begin in `bytes`. */
  private take(count: number, what: string): number {
    const start = this.position
    const end = start + count
    if (end > this.buffer.length) this.load(end, what)
    this.position = end
    return start
  }

  private load(end: number, what: string): void {
    const { path, size } = this.source
    if (end > size) {
      throw ggufError("TRUNCATED", path, `The file ends inside ${what} (byte ${size}; ${end} needed).`, {
        size,
        needed: end,
      })
    }
    if (end > maxHeaderBytes) {
      throw ggufError("TOO_LARGE", path, `The header goes beyond ${maxHeaderBytes} bytes at ${what}.`)
    }
    const length = Math.min(size, Math.max(end, this.buffer.length * 2, firstRead))
    const grown = Buffer.allocUnsafe(length)
    this.buffer.copy(grown)
    this.source.read(grown.subarray(this.buffer.length), this.buffer.length)
    this.buffer = grown
  }

  u8(what: string): number {
    const at = this.take(1, what)
    return this.buffer.readUInt8(at)
  }

  u32(what: string): number {
    const at = this.take(4, what)
    return this.buffer.readUInt32LE(at)
  }

  u64(what: string): bigint {
    const at = this.take(8, what)
    return this.buffer.readBigUInt64LE(at)
  }

  /** A 64-bit count or length as a number; beyond 2^53 it cannot be true of any file. */
  count(what: string): number {
    const at = this.take(8, what)
    const n = this.buffer.readUInt32LE(at) + this.buffer.readUInt32LE(at + 4) * 0x1_0000_0000
    if (!Number.isSafeInteger(n)) {
      throw ggufError("COUNT", this.source.path, `${what} claims ${n}.`, { count: n })
    }
    return n
  }

  /** A length-prefixed text. */
  string(what: string): string {
    const length = this.count(what)
    if (length > this.remaining) {
      throw ggufError(
        "TRUNCATED",
        this.source.path,
        `A text of ${length} bytes does not fit into the file (${what}).`,
        {
          length,
        },
      )
    }
    const at = this.take(length, what)
    return this.buffer.toString("utf8", at, at + length)
  }

  /** A view of the next `count` bytes. */
  bytes(count: number, what: string): Buffer {
    const at = this.take(count, what)
    return this.buffer.subarray(at, at + count)
  }
}
