/** A GGML tensor type: id in the file, name, weights in a block, bytes of a block. */
export interface GgmlType {
  readonly id: number
  readonly name: string
  readonly blockSize: number
  readonly blockBytes: number
}

const table: readonly (readonly [id: number, name: string, blockSize: number, blockBytes: number])[] = [
  [0, "F32", 1, 4],
  [1, "F16", 1, 2],
  [2, "Q4_0", 32, 18],
  [3, "Q4_1", 32, 20],
  [6, "Q5_0", 32, 22],
  [7, "Q5_1", 32, 24],
  [8, "Q8_0", 32, 34],
  [9, "Q8_1", 32, 36],
  [10, "Q2_K", 256, 84],
  [11, "Q3_K", 256, 110],
  [12, "Q4_K", 256, 144],
  [13, "Q5_K", 256, 176],
  [14, "Q6_K", 256, 210],
  [15, "Q8_K", 256, 292],
  [16, "IQ2_XXS", 256, 66],
  [17, "IQ2_XS", 256, 74],
  [18, "IQ3_XXS", 256, 98],
  [19, "IQ1_S", 256, 50],
  [20, "IQ4_NL", 32, 18],
  [21, "IQ3_S", 256, 110],
  [22, "IQ2_S", 256, 82],
  [23, "IQ4_XS", 256, 136],
  [24, "I8", 1, 1],
  [25, "I16", 1, 2],
  [26, "I32", 1, 4],
  [27, "I64", 1, 8],
  [28, "F64", 1, 8],
  [29, "IQ1_M", 256, 56],
  [30, "BF16", 1, 2],
  [34, "TQ1_0", 256, 54],
  [35, "TQ2_0", 256, 66],
  [39, "MXFP4", 32, 17],
  [40, "NVFP4", 64, 36],
  [41, "Q1_0", 128, 18],
  [42, "Q2_0", 64, 18],
]

/** Every tensor type of the format by id. Source: ggml `include/ggml.h` and `src/ggml-common.h`. */
export const ggmlTypes: ReadonlyMap<number, GgmlType> = new Map(
  table.map(([id, name, blockSize, blockBytes]) => [id, { id, name, blockSize, blockBytes }]),
)

const byName = new Map([...ggmlTypes.values()].map((t) => [t.name, t]))

/** The tensor type of a name such as `Q4_1`, if there is one. */
export const ggmlTypeByName = (name: string): GgmlType | undefined => byName.get(name)

/** Scalar kinds of a metadata value. */
export type GgufScalarType =
  | "u8"
  | "i8"
  | "u16"
  | "i16"
  | "u32"
  | "i32"
  | "f32"
  | "bool"
  | "string"
  | "u64"
  | "i64"
  | "f64"

/** Ids of metadata value types in the file; 9 is an array. Source: ggml `docs/gguf.md`. */
export const ggufScalarIds: Readonly<Record<GgufScalarType, number>> = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  u64: 10,
  i64: 11,
  f64: 12,
}

/** A metadata value with its stored type, so that a file written from what was read is the same. 64-bit integers are bigints only where a number would lose digits. */
export type GgufValue =
  | { readonly type: "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "f64"; readonly value: number }
  | { readonly type: "u64" | "i64"; readonly value: number | bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "array"; readonly items: "string"; readonly value: readonly string[] }
  | { readonly type: "array"; readonly items: "bool"; readonly value: readonly boolean[] }
  | { readonly type: "array"; readonly items: "u64" | "i64"; readonly value: readonly (number | bigint)[] }
  | {
      readonly type: "array"
      readonly items: "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "f64"
      readonly value: readonly number[]
    }

/** Metadata of a GGUF file in file order. */
export type GgufMetadata = ReadonlyMap<string, GgufValue>

/** The number stored under a key, whatever its width; undefined where the key is absent or holds something else. */
export const ggufNumber = (metadata: GgufMetadata, key: string): number | undefined => {
  const value = metadata.get(key)?.value
  return typeof value === "number" ? value : undefined
}

/** The text stored under a key. */
export const ggufString = (metadata: GgufMetadata, key: string): string | undefined => {
  const value = metadata.get(key)?.value
  return typeof value === "string" ? value : undefined
}

/** The flag stored under a key. */
export const ggufBoolean = (metadata: GgufMetadata, key: string): boolean | undefined => {
  const value = metadata.get(key)?.value
  return typeof value === "boolean" ? value : undefined
}

/** The numbers of an array stored under a key. */
export const ggufNumbers = (metadata: GgufMetadata, key: string): readonly number[] | undefined => {
  const value = metadata.get(key)
  return value?.type === "array" && value.value.every((v) => typeof v === "number")
    ? (value.value as readonly number[])
    : undefined
}

/** The texts of an array stored under a key. */
export const ggufStrings = (metadata: GgufMetadata, key: string): readonly string[] | undefined => {
  const value = metadata.get(key)
  return value?.type === "array" && value.items === "string" ? value.value : undefined
}
