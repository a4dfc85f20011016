import { describe, expect, test } from "bun:test"

import { isSlothError } from "@sloth/core"

import { fromBf16, fromF16, toBf16, toF16 } from "./formats/half.ts"
import golden from "./formats/golden/weight-formats.json" with { type: "json" }
import { bytesFor, registerWeightFormat, weightFormat, weightFormats } from "./weight-format.ts"

const bytes = (hex: string): Uint8Array<ArrayBuffer> => Uint8Array.from(Buffer.from(hex, "hex"))
const floats = (hex: string): Float32Array => new Float32Array(bytes(hex).buffer)

const code = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    if (isSlothError(error)) return error.code
    throw error
  }
  return "nothing thrown"
}

describe("weight formats against gguf-py", () => {
  for (const [id, cases] of Object.entries(golden.formats)) {
    test(id, () => {
      const format = weightFormat(id)
      for (const item of cases) {
        const input = floats(item.input)
        const expected = bytes(item.bytes)
        expect(bytesFor(format, input.length)).toBe(expected.length)
        const encoded = new Uint8Array(expected.length)
        format.quantizeRow!(input, encoded, input.length)
        expect(encoded).toEqual(expected)
        const decoded = new Float32Array(input.length)
        format.dequantizeRow(expected, decoded, input.length)
        // Equal as numbers: a 4-bit code that stands for zero decodes to +0 or -0.
        expect([...decoded].map((v) => v + 0)).toEqual([...floats(item.values)].map((v) => v + 0))
      }
    })
  }
})

describe("16-bit floats", () => {
  test("every f16 value survives the round trip", () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = fromF16(bits)
      if (Number.isNaN(value)) expect(Number.isNaN(fromF16(toF16(value)))).toBe(true)
      else expect(toF16(value)).toBe(bits)
    }
  })

  test("every bf16 value survives the round trip", () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = fromBf16(bits)
      if (Number.isNaN(value)) expect(Number.isNaN(fromBf16(toBf16(value)))).toBe(true)
      else expect(toBf16(value)).toBe(bits)
    }
  })

  test("a NaN whose payload lies in the lost bits stays NaN", () => {
    const nan = new Float32Array(new Uint32Array([0x7f800001]).buffer)
    for (const id of ["f16", "bf16"]) {
      const out = new Uint8Array(2)
      weightFormat(id).quantizeRow!(nan, out, 1)
      const back = new Float32Array(1)
      weightFormat(id).dequantizeRow(out, back, 1)
      expect(back[0]).toBeNaN()
    }
  })

  test("f32 keeps every bit and reads unaligned bytes", () => {
    const source = new Float32Array([1, -0, NaN, 1e-45, 3.5])
    const out = new Uint8Array(21)
    weightFormat("f32").quantizeRow!(source, out.subarray(1), 5)
    const back = new Float32Array(5)
    weightFormat("f32").dequantizeRow(out.subarray(1), back, 5)
    expect(new Uint8Array(back.buffer)).toEqual(new Uint8Array(source.buffer))
  })
})

describe("the registry", () => {
  test("finds by id and code, in code order", () => {
    expect(weightFormats().map((f) => f.code)).toEqual([0, 1, 2, 3, 8, 30])
    for (const format of weightFormats()) {
      expect(weightFormat(format.id)).toBe(format)
      expect(weightFormat(format.code)).toBe(format)
    }
  })

  test("errors are coded", () => {
    expect(code(() => weightFormat("q9_9"))).toBe("SLOTH_FORMAT_UNKNOWN")
    expect(code(() => weightFormat(99))).toBe("SLOTH_FORMAT_UNKNOWN")
    expect(code(() => bytesFor(weightFormat("q4_0"), 33))).toBe("SLOTH_FORMAT_SIZE")
    expect(code(() => registerWeightFormat({ ...weightFormat("f16") }))).toBe("SLOTH_FORMAT_DUPLICATE")
    expect(code(() => registerWeightFormat({ ...weightFormat("f16"), id: "x", code: 70000, blockSize: 0 }))).toBe(
      "SLOTH_FORMAT_INVALID",
    )
    registerWeightFormat(weightFormat("f16"))
  })
})
