import { closeSync, openSync, readFileSync, readSync, renameSync, rmSync, statSync } from "node:fs"
import { mkdir, rm, writeFile } from "node:fs/promises"
import { basename, join } from "node:path"
import {
  hashFile,
  isSlothError,
  replaceDirectoryAtomic,
  SlothError,
  temporarySibling,
  type CheckpointEntry,
} from "@sloth/core"
import { readSafetensors, savePeftAdapter, writeSafetensors, type CausalLM, type LoraConfig } from "@sloth/model"
import type { Tensor } from "@sloth/tensor"
import type { AdamW } from "./optimizer.ts"

/** Sums over the steps so far, for the end of the run. */
export interface RunTotals {
  readonly tokens: number
  readonly scoredTokens: number
  /** Seconds of training, pauses between resumed parts not counted. */
  readonly seconds: number
  /** Loss of the last step. */
  readonly loss: number
}

/** The lowest evaluation loss so far. */
export interface BestEvaluation {
  readonly step: number
  readonly loss: number
}

/** `manifest.json` of a checkpoint: where the run stood, what it belongs to, and what its files must hash to. */
export interface CheckpointManifest {
  readonly format: 1
  /** Optimizer steps done. */
  readonly step: number
  /** Epoch (from 0) and first row in it of the next step. */
  readonly epoch: number
  readonly position: number
  /**
   * Every random number of training is Philox4x32-10 addressed by (seed, stream, step, element), so its whole state is the seed and the step.
   */
  readonly random: { readonly generator: "philox4x32-10"; readonly seed: number; readonly step: number }
  readonly totals: RunTotals
  readonly best: BestEvaluation | undefined
  /** What the method's loss remembers from step to step; absent where that is nothing. */
  readonly method?: unknown
  /** SHA-256 of the settings that decide the numbers, of the model and of the data. */
  readonly configHash: string
  readonly modelFingerprint: string
  readonly dataHash: string
  /** "adapter": a PEFT adapter; "weights": the trained weights by Hugging Face name. */
  readonly kind: "adapter" | "weights"
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>
}

/** What a checkpoint is made of besides its files. */
export type CheckpointState = Omit<CheckpointManifest, "format" | "files" | "kind">

const ADAPTER = "adapter_model.safetensors"
const WEIGHTS = "weights.safetensors"
const OPTIMIZER = "optimizer.safetensors"

/** Tensors for a safetensors file, read from the device one after the other while it is written. */
const stored = (model: CausalLM, name: string, tensor: Tensor, dtype: "F32" | "U8") => {
  const bytes = tensor.size * (dtype === "F32" ? 4 : 1)
  return {
    name,
    dtype,
    shape: tensor.shape,
    bytes,
    data: () => model.engine.backend.memory.read(tensor.handle, 0, bytes),
  }
}

/** Writes the trained weights of a model by Hugging Face name, f32; a score head that was only a `critic` stays out. */
export const writeTrainedWeights = async (
  model: CausalLM,
  path: string,
  options: { readonly critic?: boolean } = {},
): Promise<void> => {
  const list = model.trainables().filter(({ group }) => options.critic !== true || group !== "head")
  await writeSafetensors(
    path,
    list.map((t) => stored(model, t.name, t.tensor, "F32")),
  )
}

/**
 * Saves a checkpoint folder: the adapter in PEFT form (or the trained weights), the optimizer's states, and the manifest. It is written under a temporary name, synced
 * and renamed, so that it is there whole or not at all. `extra` are files of the method, such as units that are not trained on yet. Returns its size in bytes.
 * Errors: SLOTH_DISK_FULL and the other codes of file errors; what was there before is unchanged.
 */
export const saveCheckpoint = async (
  folder: string,
  model: CausalLM,
  optimizer: AdamW,
  state: CheckpointState,
  adapter: { readonly lora: LoraConfig; readonly base: string } | undefined,
  extra: ReadonlyMap<string, Uint8Array> = new Map(),
): Promise<number> => {
  const temporary = temporarySibling(folder)
  try {
    await mkdir(temporary, { recursive: true })
    if (adapter === undefined) await writeTrainedWeights(model, join(temporary, WEIGHTS))
    else await savePeftAdapter(model, temporary, adapter.lora, adapter.base)
    await writeSafetensors(
      join(temporary, OPTIMIZER),
      [...optimizer.states()].map(([name, { tensor, dtype }]) => stored(model, name, tensor, dtype)),
    )
    for (const [name, bytes] of extra) await writeFile(join(temporary, name), bytes)
    const names = [
      ...(adapter === undefined ? [WEIGHTS] : [ADAPTER, "adapter_config.json"]),
      OPTIMIZER,
      ...extra.keys(),
    ]
    const files: Record<string, { bytes: number; sha256: string }> = {}
    for (const name of names) {
      const path = join(temporary, name)
      files[name] = { bytes: statSync(path).size, sha256: await hashFile(path) }
    }
    const manifest: CheckpointManifest = {
      format: 1,
      kind: adapter === undefined ? "weights" : "adapter",
      ...state,
      files,
    }
    const text = `${JSON.stringify(manifest, null, 2)}\n`
    await writeFile(join(temporary, "manifest.json"), text)
    await replaceDirectoryAtomic(temporary, folder)
    return Object.values(files).reduce((n, f) => n + f.bytes, text.length)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
    throw error
  }
}

const damaged = (folder: string, why: string, cause?: unknown): SlothError =>
  new SlothError("SLOTH_CHECKPOINT_DAMAGED", {
    what: `The checkpoint ${folder} is damaged.`,
    why,
    next: "Resume from another checkpoint.",
    fields: { path: folder },
    cause,
  })

/** Reads a checkpoint's manifest and checks every file against it. Errors: SLOTH_CHECKPOINT_DAMAGED. */
export const verifyCheckpoint = async (folder: string): Promise<CheckpointManifest> => {
  let manifest: CheckpointManifest
  try {
    manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8")) as CheckpointManifest
  } catch (cause) {
    throw damaged(folder, "Its manifest.json is missing or not JSON.", cause)
  }
  if (manifest.format !== 1 || typeof manifest.step !== "number" || typeof manifest.files !== "object")
    throw damaged(folder, "Its manifest.json is not one that this version reads.")
  for (const [name, { bytes, sha256 }] of Object.entries(manifest.files)) {
    const path = join(folder, basename(name))
    const size = statSync(path, { throwIfNoEntry: false })?.size
    if (size !== bytes) throw damaged(folder, `${name} has ${size ?? "no"} bytes instead of ${bytes}.`)
    if ((await hashFile(path)) !== sha256) throw damaged(folder, `The content of ${name} has changed.`)
  }
  return manifest
}

/** The newest sound checkpoint of a list (newest first), with what was wrong with newer ones. Errors: SLOTH_RESUME_NO_CHECKPOINT when all are damaged. */
export const latestCheckpoint = async (
  entries: readonly CheckpointEntry[],
): Promise<{ entry: CheckpointEntry; manifest: CheckpointManifest; damaged: readonly SlothError[] } | undefined> => {
  const errors: SlothError[] = []
  for (const entry of entries)
    try {
      return { entry, manifest: await verifyCheckpoint(entry.path), damaged: errors }
    } catch (error) {
      if (!isSlothError(error)) throw error
      errors.push(error)
    }
  if (entries.length === 0) return undefined
  throw new SlothError("SLOTH_RESUME_NO_CHECKPOINT", {
    what: `All ${entries.length} checkpoints of the run are damaged.`,
    why: errors[0]!.why,
    next: "Start a new run.",
    fields: { damaged: errors.map((e) => e.fields["path"]) },
  })
}

/** Puts the tensors of a checkpoint file into place; every one must be there with its shape. */
const restoreTensors = (path: string, wanted: ReadonlyMap<string, Tensor>): void => {
  const entries = new Map(readSafetensors(path).tensors.map((t) => [t.name, t]))
  const file = openSync(path, "r")
  try {
    for (const [name, tensor] of wanted) {
      const entry = entries.get(name)
      if (entry === undefined || entry.shape.join() !== tensor.shape.join())
        throw damaged(path, entry === undefined ? `${name} is missing.` : `${name} has another shape.`)
      // One tensor at a time: a whole file may be larger than a buffer can be.
      const bytes = new Uint8Array(entry.bytes)
      for (let at = 0; at < bytes.length;) {
        const n = readSync(file, bytes, at, bytes.length - at, entry.offset + at)
        if (n === 0) throw damaged(path, `It ends inside ${name}.`)
        at += n
      }
      tensor.write(bytes)
    }
  } finally {
    closeSync(file)
  }
}

/** Loads trained weights and optimizer states into a model that was made trainable from this checkpoint. */
export const restoreCheckpoint = (
  folder: string,
  manifest: CheckpointManifest,
  model: CausalLM,
  optimizer: AdamW,
): void => {
  const weights = new Map(
    model
      .trainables()
      .map((t) => [
        manifest.kind === "weights" || t.group === "adapter" ? t.name : `base_model.model.${t.name}`,
        t.tensor,
      ]),
  )
  restoreTensors(join(folder, manifest.kind === "weights" ? WEIGHTS : ADAPTER), weights)
  restoreTensors(join(folder, OPTIMIZER), new Map([...optimizer.states()].map(([name, { tensor }]) => [name, tensor])))
}

/** The files that a method put into a checkpoint. */
export const extraFiles = (folder: string, manifest: CheckpointManifest): ReadonlyMap<string, Uint8Array> => {
  const own = new Set([ADAPTER, "adapter_config.json", WEIGHTS, OPTIMIZER])
  return new Map(
    Object.keys(manifest.files)
      .filter((name) => !own.has(name))
      .map((name) => [name, readFileSync(join(folder, basename(name)))]),
  )
}

/** Removes checkpoints beyond the newest `keep`, the best one excepted. */
export const pruneCheckpoints = (entries: readonly CheckpointEntry[], keep: number, best: number | undefined): void => {
  for (const entry of entries.slice(keep)) {
    if (entry.step === best) continue
    // A name that readers skip comes first: a kill in the middle of the removal must not leave half a checkpoint.
    const going = temporarySibling(entry.path)
    renameSync(entry.path, going)
    rmSync(going, { recursive: true, force: true })
  }
}
