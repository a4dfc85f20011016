import { existsSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs"
import { basename, join, resolve } from "node:path"
import { recoverDirectory, removeTemporaries, writeFileAtomic } from "./atomic-file.ts"
import { isSlothError, SlothError } from "./errors.ts"
import { fileError, systemCode } from "./file-error.ts"
import { acquireRunLock } from "./internal/run-lock.ts"
import { slothVersion } from "./version.ts"

/** The places in a run folder, as absolute paths. */
export interface RunPaths {
  readonly root: string
  readonly config: string
  readonly events: string
  readonly samples: string
  readonly checkpoints: string
  readonly exports: string
  readonly adapter: string
  readonly report: string
  readonly lock: string
}

/** What `config.json` of a run holds: enough to repeat the run and to notice that its inputs changed. */
export interface RunConfig {
  /** Marks a folder as a run; `format` is the version of this layout. */
  readonly sloth: { readonly version: string; readonly format: 1 }
  readonly name: string
  /** ISO 8601. */
  readonly createdAt: string
  /** "train", "quickstart". */
  readonly command: string
  /** The resolved configuration, defaults included. */
  readonly config: Readonly<Record<string, unknown>>
  /** Versions of packages, plugins and the runtime. */
  readonly versions: Readonly<Record<string, string>>
  /** SHA-256 of inputs by name: `model`, `data`, `adapter`. */
  readonly hashes: Readonly<Record<string, string>>
  /** What only the writer of the run knows: plan, dataset statement. */
  readonly details?: Readonly<Record<string, unknown>>
}

/** What the caller gives for `config.json`; the rest is filled in. */
export type RunConfigInput = Pick<RunConfig, "command" | "config"> &
  Partial<Pick<RunConfig, "versions" | "hashes" | "details">>

/** A checkpoint folder with a final name; whether its content is sound is for its reader to say. */
export interface CheckpointEntry {
  readonly step: number
  readonly path: string
}

/** The paths of a run folder; touches nothing. */
export const runPaths = (directory: string): RunPaths => {
  const root = resolve(directory)
  return {
    root,
    config: join(root, "config.json"),
    events: join(root, "events.jsonl"),
    samples: join(root, "samples.jsonl"),
    checkpoints: join(root, "checkpoints"),
    exports: join(root, "exports"),
    adapter: join(root, "adapter"),
    report: join(root, "report.html"),
    lock: join(root, "run.lock"),
  }
}

/** `step-000100`: the folder name of a checkpoint. */
export const checkpointName = (step: number): string => `step-${String(step).padStart(6, "0")}`

/** Checkpoints of a run, newest first; unfinished ones (temporary names) are not listed. */
export const listCheckpoints = (directory: string): readonly CheckpointEntry[] => {
  const { checkpoints } = runPaths(directory)
  let names: string[]
  try {
    names = readdirSync(checkpoints)
  } catch (error) {
    if (systemCode(error) === "ENOENT") return []
    throw fileError(error, checkpoints, "read")
  }
  return names
    .flatMap((name) => {
      const step = /^step-(\d{6,})$/.exec(name)?.[1]
      return step === undefined ? [] : [{ step: Number(step), path: join(checkpoints, name) }]
    })
    .sort((a, b) => b.step - a.step)
}

const checkFormat = (value: unknown, path: string): RunConfig => {
  const mark = (value as Partial<RunConfig> | null)?.sloth
  if (typeof mark !== "object" || mark === null || typeof mark.version !== "string") {
    throw new SlothError("SLOTH_RUN_NOT_A_RUN", {
      what: `${path} was not written by Sloth.`,
      why: 'It has no "sloth" key.',
      next: "Name a folder that `sloth train` made.",
      fields: { path },
    })
  }
  if (mark.format !== 1) {
    throw new SlothError("SLOTH_RUN_FORMAT", {
      what: `The run at ${path} has layout ${String(mark.format)}; this version reads layout 1.`,
      why: `It was written by Sloth ${mark.version}.`,
      next: "Use that version of Sloth, or a newer one.",
      fields: { path, version: mark.version, format: mark.format },
    })
  }
  return value as RunConfig
}

/** `config.json` of a run folder. Errors: SLOTH_RUN_NOT_A_RUN, SLOTH_RUN_FORMAT, and those of `fileError`. */
export const readRunConfig = (directory: string): RunConfig => {
  const { config: path, root } = runPaths(directory)
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (error) {
    if (systemCode(error) !== "ENOENT" || !existsSync(root))
      throw fileError(error, existsSync(root) ? path : root, "read")
    throw new SlothError("SLOTH_RUN_NOT_A_RUN", {
      what: `${root} is not a run folder.`,
      why: "It has no config.json.",
      next: "Name a folder that `sloth train` made.",
      fields: { path: root },
      cause: error,
    })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new SlothError("SLOTH_RUN_NOT_A_RUN", {
      what: `${path} is not JSON.`,
      why: error instanceof Error ? error.message : undefined,
      next: "Restore the file, or start a new run.",
      fields: { path },
      cause: error,
    })
  }
  return checkFormat(value, path)
}

/** True when a folder holds the `config.json` of a run. */
export const isRunDirectory = (directory: string): boolean => {
  try {
    readRunConfig(directory)
    return true
  } catch {
    return false
  }
}

/**
 * Refuses to resume on other inputs: every hash that both configurations have must be equal.
 * Errors: SLOTH_RUN_INPUT_CHANGED, naming the inputs.
 */
export const requireSameInputs = (
  previous: Readonly<Record<string, string>>,
  now: Readonly<Record<string, string>>,
  directory: string,
): void => {
  const changed = Object.keys(previous).filter((name) => name in now && now[name] !== previous[name])
  if (changed.length === 0) return
  throw new SlothError("SLOTH_RUN_INPUT_CHANGED", {
    what: `The run in ${directory} cannot be resumed: its ${changed.join(" and ")} changed since it started.`,
    why: changed
      .map((name) => `${name} was ${previous[name]?.slice(0, 12)} and is ${now[name]?.slice(0, 12)}.`)
      .join(" "),
    next: "Restore the original, or start a new run; --adapter continues from the old run's adapter.",
    fields: { path: directory, changed, previous, now },
  })
}

/** Options of {@link RunDirectory.create}. */
export interface CreateRunOptions {
  /** The run folder itself; refused when a run is in it already. */
  readonly directory?: string
  /** Where a named run goes: `runs` by default. */
  readonly root?: string
  /** Exact name inside `root`; refused when it exists. */
  readonly name?: string
  /** Start of the automatic name, which gets the next free number: `nano-sft` becomes `nano-sft-001`. */
  readonly prefix?: string
}

/** True where the marker of a run stands, whatever the version that wrote it; its content may be unreadable for this one. */
const bearsRunMark = (directory: string): boolean => {
  try {
    readRunConfig(directory)
    return true
  } catch (error) {
    return isSlothError(error) && error.code === "SLOTH_RUN_FORMAT"
  }
}

/** Refuses a folder that has a config.json: it is a run, or somebody else's, such as a model's. */
const requireNoConfig = ({ config, root }: RunPaths): void => {
  if (!existsSync(config)) return
  if (bearsRunMark(root))
    throw new SlothError("SLOTH_RUN_EXISTS", {
      what: `${root} holds a run already.`,
      why: "A run is never overwritten.",
      next: "Continue it with --resume, or choose another folder with --run.",
      fields: { path: root },
    })
  throw new SlothError("SLOTH_RUN_NOT_EMPTY", {
    what: `${root} holds a config.json that no run wrote.`,
    why: "It looks like the folder of a model or of another program; a run needs a folder of its own.",
    next: "Choose a new or empty folder with --run.",
    fields: { path: root, config },
  })
}

const makeDirectory = (path: string, recursive: boolean): boolean => {
  try {
    mkdirSync(path, { recursive })
    return true
  } catch (error) {
    if (!recursive && systemCode(error) === "EEXIST") return false
    throw fileError(error, path, "create the folder")
  }
}

const slug = (text: string): string =>
  text
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[-.]+|[-.]+$/g, "")
    .slice(0, 80) || "run"

const claimNext = (root: string, prefix: string): string => {
  const start = slug(prefix)
  const taken = readdirSync(root)
    .filter((name) => name.startsWith(`${start}-`))
    .map((name) => Number(/^\d+$/.exec(name.slice(start.length + 1))?.[0] ?? 0))
  for (let number = Math.max(0, ...taken) + 1; ; number++) {
    // mkdir decides: of two runs that start together only one gets the name
    const path = join(root, `${start}-${String(number).padStart(3, "0")}`)
    if (makeDirectory(path, false)) return path
  }
}

/** True for an empty folder, and for one that a run left before it wrote anything: its lock, an empty checkpoint folder, temporaries. */
const isVacant = ({ root, checkpoints }: RunPaths): boolean =>
  readdirSync(root).every((name) => {
    if (name === "run.lock" || name === "run.lock.takeover" || (name.startsWith(".") && name.endsWith(".tmp")))
      return true
    return name === "checkpoints" && statSync(checkpoints).isDirectory() && readdirSync(checkpoints).length === 0
  })

/** A run folder held by this process: no other run can write to it until it is closed. */
export class RunDirectory implements Disposable {
  readonly paths: RunPaths
  readonly name: string
  readonly #release: () => void

  private constructor(directory: string, release: () => void) {
    this.paths = runPaths(directory)
    this.name = basename(this.paths.root)
    this.#release = release
  }

  /**
   * Makes a new run folder and locks it.
   * Errors: SLOTH_RUN_EXISTS, SLOTH_RUN_NOT_EMPTY, SLOTH_RUN_LOCKED, SLOTH_FILE_READ_ONLY and the other codes of `fileError`.
   */
  static async create(options: CreateRunOptions = {}): Promise<RunDirectory> {
    let directory: string
    if (options.directory !== undefined) {
      directory = resolve(options.directory)
      makeDirectory(directory, true)
    } else {
      const root = resolve(options.root ?? "runs")
      makeDirectory(root, true)
      if (options.name === undefined) directory = claimNext(root, options.prefix ?? "run")
      else {
        directory = join(root, slug(options.name))
        makeDirectory(directory, true)
      }
    }
    const paths = runPaths(directory)
    requireNoConfig(paths)
    const lock = acquireRunLock(paths.lock, directory)
    try {
      // again, now that nobody else can write: two runs may have passed the first look together
      requireNoConfig(paths)
      if (!isVacant(paths)) {
        throw new SlothError("SLOTH_RUN_NOT_EMPTY", {
          what: `${directory} is not empty.`,
          why: "A run needs a folder of its own.",
          next: "Choose a new or empty folder with --run.",
          fields: { path: directory },
        })
      }
      makeDirectory(paths.checkpoints, true)
    } catch (error) {
      lock.release()
      throw error
    }
    return new RunDirectory(directory, lock.release)
  }

  /**
   * Locks an existing run folder to continue it; what a crash left half done is put right first.
   * Errors: SLOTH_RUN_NOT_A_RUN, SLOTH_RUN_FORMAT, SLOTH_RUN_LOCKED, and those of `fileError`.
   */
  static async resume(directory: string): Promise<RunDirectory> {
    readRunConfig(directory)
    const paths = runPaths(directory)
    const lock = acquireRunLock(paths.lock, paths.root)
    try {
      for (const place of [paths.root, paths.checkpoints, paths.exports]) await removeTemporaries(place)
      await recoverDirectory(paths.adapter)
      makeDirectory(paths.checkpoints, true)
    } catch (error) {
      lock.release()
      throw error
    }
    return new RunDirectory(directory, lock.release)
  }

  /** Writes `config.json`; the time of creation is kept when it is written again. */
  async writeConfig(input: RunConfigInput): Promise<RunConfig> {
    const before = isRunDirectory(this.paths.root) ? readRunConfig(this.paths.root) : undefined
    const config: RunConfig = {
      sloth: { version: slothVersion(), format: 1 },
      name: this.name,
      createdAt: before?.createdAt ?? new Date().toISOString(),
      command: input.command,
      config: input.config,
      versions: input.versions ?? {},
      hashes: input.hashes ?? {},
      ...(input.details === undefined ? {} : { details: input.details }),
    }
    await writeFileAtomic(this.paths.config, `${JSON.stringify(config, null, 2)}\n`)
    return config
  }

  /** `config.json` of this run. */
  readConfig(): RunConfig {
    return readRunConfig(this.paths.root)
  }

  /** Final path of the checkpoint of a step. */
  checkpointPath(step: number): string {
    return join(this.paths.checkpoints, checkpointName(step))
  }

  /** Checkpoints, newest first. */
  checkpoints(): readonly CheckpointEntry[] {
    return listCheckpoints(this.paths.root)
  }

  /** Gives the folder free; closing twice is harmless. */
  close(): void {
    this.#release()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** Runs under a folder, newest first by the time of creation. */
export const listRuns = (root: string): readonly { readonly path: string; readonly config: RunConfig }[] => {
  let names: string[]
  try {
    names = readdirSync(root)
  } catch (error) {
    if (systemCode(error) === "ENOENT") return []
    throw fileError(error, root, "read")
  }
  return names
    .map((name) => join(resolve(root), name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true && isRunDirectory(path))
    .map((path) => ({ path, config: readRunConfig(path) }))
    .sort((a, b) => b.config.createdAt.localeCompare(a.config.createdAt))
}
