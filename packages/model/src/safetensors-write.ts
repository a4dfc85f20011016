import { readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { requireDisk, SlothError } from "@sloth/core"
import { writeAtomic, writePending, writeTensorData, type FileSink, type PendingFile } from "./internal/atomic-write.ts"
import { safetensorsBits } from "./safetensors.ts"
import type { TensorData } from "./tensor-table.ts"

/** One tensor to write; `bytes` must equal what shape and dtype say. */
export interface SafetensorsInput {
  readonly name: string
  readonly dtype: string
  readonly shape: readonly number[]
  readonly bytes: number
  readonly data: TensorData
}

/** What was written: the files in order and the bytes of tensor data. */
export interface SafetensorsReport {
  readonly files: readonly string[]
  readonly totalBytes: number
}

interface Layout {
  readonly header: Buffer
  readonly tensors: readonly SafetensorsInput[]
  readonly bytes: number
}

const checkInput = (t: SafetensorsInput, seen: Set<string>, path: string): void => {
  const bits = Object.hasOwn(safetensorsBits, t.dtype) ? safetensorsBits[t.dtype] : undefined
  const elements = t.shape.reduce((a, b) => a * b, 1)
  if (bits === undefined || (elements * bits) / 8 !== t.bytes || t.name === "" || t.name === "__metadata__") {
    throw new SlothError("SLOTH_SAFETENSORS_INPUT", {
      what: `Tensor ${JSON.stringify(t.name)} (${t.dtype}, [${t.shape.join(", ")}], ${t.bytes} bytes) cannot be written.`,
      why: "Its name or dtype is not one of the format's, or its bytes do not match its shape.",
      next: `Known dtypes: ${Object.keys(safetensorsBits).join(", ")}.`,
      fields: { path, tensor: t.name, dtype: t.dtype, shape: t.shape, bytes: t.bytes },
    })
  }
  if (seen.has(t.name)) {
    throw new SlothError("SLOTH_SAFETENSORS_DUPLICATE", {
      what: `Tensor ${t.name} was given twice.`,
      next: "Give every tensor its own name; tied weights are written once.",
      fields: { path, tensor: t.name },
    })
  }
  seen.add(t.name)
}

const layout = (tensors: readonly SafetensorsInput[], metadata: Readonly<Record<string, string>>): Layout => {
  const header: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  header["__metadata__"] = metadata
  let offset = 0
  for (const t of tensors) {
    header[t.name] = { dtype: t.dtype, shape: t.shape, data_offsets: [offset, offset + t.bytes] }
    offset += t.bytes
  }
  const json = Buffer.from(JSON.stringify(header))
  // The data must start at a multiple of 8, so the JSON is padded with spaces.
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, 0x20)
  padded.writeBigUInt64LE(BigInt(padded.length - 8), 0)
  json.copy(padded, 8)
  return { header: padded, tensors, bytes: padded.length + offset }
}

const produce =
  (l: Layout, path: string) =>
  async (sink: FileSink): Promise<void> => {
    await sink.write(l.header)
    for (const t of l.tensors) await writeTensorData(sink, t.name, t.bytes, t.data, path)
  }

const collect = (tensors: Iterable<SafetensorsInput>, path: string): SafetensorsInput[] => {
  const seen = new Set<string>()
  const list: SafetensorsInput[] = []
  for (const t of tensors) {
    checkInput(t, seen, path)
    list.push(t)
  }
  return list
}

/**
 * Writes one safetensors file, whole or not at all: space check, temporary name, sync, rename.
 *
 * **Errors**: `SLOTH_DISK_SPACE`, `SLOTH_DISK_FULL`, `SLOTH_FILE_*`, `SLOTH_SAFETENSORS_INPUT`, `SLOTH_SAFETENSORS_DUPLICATE`, `SLOTH_WRITE_LENGTH`. The previous file survives them all.
 */
export const writeSafetensors = async (
  path: string,
  tensors: Iterable<SafetensorsInput>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<SafetensorsReport> => {
  const list = collect(tensors, path)
  const l = layout(list, { format: "pt", ...metadata })
  await writeAtomic(path, l.bytes, produce(l, path))
  return { files: [path], totalBytes: list.reduce((a, t) => a + t.bytes, 0) }
}

/** Splits tensors in their order into shards of at most `maxShardBytes`; a larger tensor gets a shard of its own. */
const shardsOf = (tensors: readonly SafetensorsInput[], maxShardBytes: number): SafetensorsInput[][] => {
  const shards: SafetensorsInput[][] = [[]]
  let size = 0
  for (const t of tensors) {
    if (size > 0 && size + t.bytes > maxShardBytes) {
      shards.push([])
      size = 0
    }
    shards.at(-1)!.push(t)
    size += t.bytes
  }
  return shards
}

/** Removes weight files of an earlier save: a reader that finds both kinds would load the old ones. */
const removeOthers = async (folder: string, keep: readonly string[]): Promise<void> => {
  for (const name of await readdir(folder)) {
    if (/^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(name) && !keep.includes(name)) {
      await rm(join(folder, name), { force: true })
    }
  }
}

/**
 * Writes `model.safetensors` into a folder, or shards with `model.safetensors.index.json` where the data is larger than `maxShardBytes`.
 * All shards are complete on disk before any takes its name; the index comes last. Weight files of an earlier
 * save under these names are removed once the new ones are in place.
 *
 * **Units**: bytes; the default 5 GB is the one transformers uses.
 */
export const writeSafetensorsFolder = async (
  folder: string,
  tensors: Iterable<SafetensorsInput>,
  options: { readonly maxShardBytes?: number; readonly metadata?: Readonly<Record<string, string>> } = {},
): Promise<SafetensorsReport> => {
  const maxShardBytes = options.maxShardBytes ?? 5_000_000_000
  const list = collect(tensors, folder)
  const shards = shardsOf(list, maxShardBytes)
  if (shards.length === 1) {
    const report = await writeSafetensors(join(folder, "model.safetensors"), list, options.metadata)
    await removeOthers(folder, ["model.safetensors"])
    return report
  }
  const total = String(shards.length).padStart(5, "0")
  const files = shards.map((tensorsOf, i) => ({
    name: `model-${String(i + 1).padStart(5, "0")}-of-${total}.safetensors`,
    layout: layout(tensorsOf, { format: "pt", ...options.metadata }),
  }))
  const totalBytes = list.reduce((a, t) => a + t.bytes, 0)
  const weightMap: Record<string, string> = Object.create(null) as Record<string, string>
  for (const file of files) for (const t of file.layout.tensors) weightMap[t.name] = file.name
  const index = Buffer.from(
    `${JSON.stringify({ metadata: { total_size: totalBytes }, weight_map: weightMap }, undefined, 2)}\n`,
  )
  await requireDisk(
    folder,
    files.reduce((a, f) => a + f.layout.bytes, index.length),
    `${files.length} shards`,
  )
  const pending: PendingFile[] = []
  try {
    for (const file of files) {
      const path = join(folder, file.name)
      pending.push(await writePending(path, produce(file.layout, path)))
    }
    const indexPath = join(folder, "model.safetensors.index.json")
    pending.push(await writePending(indexPath, (sink) => sink.write(index)))
  } catch (error) {
    for (const p of pending) await p.discard()
    throw error
  }
  for (const p of pending) await p.commit()
  await removeOthers(folder, [...files.map((f) => f.name), "model.safetensors.index.json"])
  return { files: files.map((f) => join(folder, f.name)), totalBytes }
}
