import { maskedCrc32c } from "./crc32c.ts"

// Protocol buffers, as far as an event needs them: https://protobuf.dev/programming-guides/encoding. Field numbers: TensorFlow's event.proto and summary.proto.
const VARINT = 0
const FIXED64 = 1
const BYTES = 2
const FIXED32 = 5

const key = (field: number, wire: number): number => (field << 3) | wire

const varint = (value: number): Buffer => {
  const out: number[] = []
  let left = value
  while (left >= 128) {
    out.push((left % 128) | 128)
    left = Math.floor(left / 128)
  }
  out.push(left)
  return Buffer.from(out)
}

const bytesField = (field: number, value: Uint8Array): Buffer =>
  Buffer.concat([Buffer.of(key(field, BYTES)), varint(value.length), value])

const doubleField = (field: number, value: number): Buffer => {
  const out = Buffer.alloc(9)
  out[0] = key(field, FIXED64)
  out.writeDoubleLE(value, 1)
  return out
}

const floatField = (field: number, value: number): Buffer => {
  const out = Buffer.alloc(5)
  out[0] = key(field, FIXED32)
  out.writeFloatLE(value, 1)
  return out
}

const integerField = (field: number, value: number): Buffer =>
  Buffer.concat([Buffer.of(key(field, VARINT)), varint(value)])

/** What an event says besides its time and step. */
export type EventBody =
  | { readonly kind: "version" }
  /** A (re)start: readers forget what they have of this step and later ones. */
  | { readonly kind: "start" }
  | { readonly kind: "scalars"; readonly values: readonly (readonly [tag: string, value: number])[] }

/** One event as a record of a TensorBoard event file; `time` in seconds since 1970. */
export const eventRecord = (time: number, step: number, body: EventBody): Buffer => {
  const parts = [doubleField(1, time)]
  if (step > 0) parts.push(integerField(2, step))
  if (body.kind === "version") parts.push(bytesField(3, Buffer.from("brain.Event:2")))
  else if (body.kind === "start") parts.push(bytesField(7, integerField(1, 1)))
  else {
    const values = body.values.map(([tag, value]) =>
      bytesField(1, Buffer.concat([bytesField(1, Buffer.from(tag)), floatField(2, value)])),
    )
    parts.push(bytesField(5, Buffer.concat(values)))
  }
  const data = Buffer.concat(parts)
  const out = Buffer.alloc(data.length + 16)
  out.writeBigUInt64LE(BigInt(data.length), 0)
  out.writeUInt32LE(maskedCrc32c(out.subarray(0, 8)), 8)
  data.copy(out, 12)
  out.writeUInt32LE(maskedCrc32c(data), 12 + data.length)
  return out
}
