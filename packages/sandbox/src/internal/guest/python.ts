import { constants, readFileSync, renameSync, writeFileSync } from "node:fs"
import { pathToFileURL } from "node:url"
import type { SandboxOutcome, SandboxValue } from "../../outcome.ts"
import type { GuestCall, GuestConfig, GuestLanguage, GuestProgram } from "../protocol.ts"
import { Gate, Killed, type Imports } from "./gate.ts"
import { PYTHON_CLOSE, PYTHON_DRIVER } from "./python-driver.ts"
import { startWatchdog, type Watchdog } from "./watchdog.ts"

/** What this file uses of pyodide. */
interface Pyodide {
  readonly FS: {
    writeFile(path: string, data: string): void
    readFile(path: string): Uint8Array
    unlink(path: string): void
    readonly filesystems: {
      readonly MEMFS: {
        createNode(...args: unknown[]): unknown
        expandFileStorage(node: unknown, size: number): unknown
        resizeFileStorage(node: unknown, size: number): unknown
      }
    }
  }
  readonly _module: {
    readonly HEAPU8: Uint8Array
    _malloc(size: number): number
    _free(at: number): void
    _PyRun_SimpleString(at: number): number
  }
  runPython(code: string): unknown
  setStdout(options: { write(bytes: Uint8Array): number }): void
  setStderr(options: { write(bytes: Uint8Array): number }): void
  setInterruptBuffer(buffer: Uint8Array): void
  makeMemorySnapshot(): Uint8Array
}
type Load = (options: Record<string, unknown>) => Promise<Pyodide>

/** Python sees no name of the host. */
const noGlobals = Object.freeze(Object.create(null) as object)

/**
 * Programs in CPython compiled to WebAssembly (pyodide): every program gets an instance of its own, started from an image of an interpreter in which none has
 * run, with its files in memory, behind a {@link Gate}.
 */
export const pythonGuest = async (config: GuestConfig): Promise<GuestLanguage> => {
  let gate = new Gate(config.memoryBytes)
  const instantiate = WebAssembly.instantiate.bind(WebAssembly) as (
    source: Uint8Array<ArrayBuffer> | ArrayBuffer | WebAssembly.Module,
    imports?: Imports,
  ) => Promise<unknown>
  const compiled = new Map<number, Promise<WebAssembly.Module>>()
  const gated = async (
    source: Uint8Array<ArrayBuffer> | ArrayBuffer | WebAssembly.Module,
    imports: Imports | undefined,
  ): Promise<unknown> => {
    const own = gate
    if (source instanceof WebAssembly.Module) return instantiate(source, own.wrap(imports))
    // Compiling the interpreter takes longest; it is the same each time.
    const size = source.byteLength
    if (!compiled.has(size)) compiled.set(size, WebAssembly.compile(source))
    const module = await compiled.get(size)!
    return { module, instance: await instantiate(module, own.wrap(imports)) }
  }
  const streaming = async (
    response: Response | PromiseLike<Response>,
    imports: Imports | undefined,
  ): Promise<unknown> => gated(await (await response).arrayBuffer(), imports)
  Object.assign(WebAssembly, { instantiate: gated, instantiateStreaming: streaming })

  // Node's permissions deny this old way to the numbers of its constants, which pyodide asks for when it starts.
  if (process.versions["bun"] === undefined && process.versions["deno"] === undefined)
    Object.assign(process, { binding: () => ({ fs: constants }) })
  const { loadPyodide } = (await import(pathToFileURL(config.pyodide!.module).href)) as { loadPyodide: Load }
  const common = { indexURL: config.pyodide!.folder, jsglobals: noGlobals, env: { HOME: "/tmp" } }

  if (config.make === true) {
    const python = await loadPyodide({ ...common, _makeSnapshot: true })
    python.runPython(PYTHON_DRIVER)
    const draft = `${config.snapshot!}.${process.pid}`
    writeFileSync(draft, python.makeMemorySnapshot())
    renameSync(draft, config.snapshot!)
    return { prepare: () => Promise.reject(new Error("the image is made")) }
  }

  const snapshot = readFileSync(config.snapshot!)
  const watchdog = startWatchdog(5000)
  return {
    prepare: async () => {
      gate = new Gate(config.memoryBytes)
      const python = await loadPyodide({ ...common, _loadSnapshot: snapshot })
      return new PythonProgram(python, gate, watchdog, config)
    },
  }
}

class PythonProgram implements GuestProgram {
  readonly #python: Pyodide
  readonly #gate: Gate
  readonly #watchdog: Watchdog
  readonly #config: GuestConfig
  #printed: Uint8Array[] = []
  #room = 0
  #fileRoom: number

  constructor(python: Pyodide, gate: Gate, watchdog: Watchdog, config: GuestConfig) {
    this.#python = python
    this.#gate = gate
    this.#watchdog = watchdog
    this.#config = config
    this.#fileRoom = config.memoryBytes
    const write = (bytes: Uint8Array): number => {
      if (bytes.length > this.#room) {
        gate.pending ??= new Killed("output-limit", "it printed more than the limit")
      } else {
        this.#room -= bytes.length
        this.#printed.push(bytes.slice())
      }
      return bytes.length
    }
    python.setStdout({ write })
    python.setStderr({ write: (bytes) => bytes.length })
    python.setInterruptBuffer(watchdog.signals)
    python.runPython(PYTHON_CLOSE)
    this.#limitFiles()
    gate.close()
  }

  /** Files in memory lie outside the interpreter's own: what the program writes counts against its memory too. */
  #limitFiles(): void {
    const { MEMFS } = this.#python.FS.filesystems
    const spend = (bytes: number): void => {
      this.#fileRoom -= bytes
      if (this.#fileRoom < 0)
        throw (this.#gate.pending ??= new Killed("memory", "its files are larger than its memory"))
    }
    const { createNode, expandFileStorage, resizeFileStorage } = MEMFS
    const sizes = new WeakMap<object, number>()
    const grow = (node: unknown, size: number): void => {
      const before = sizes.get(node as object) ?? 0
      if (size > before) {
        spend(size - before)
        sizes.set(node as object, size)
      }
    }
    Object.assign(MEMFS, {
      createNode: (...args: unknown[]) => {
        // A node and its entry in a folder are a few hundred bytes.
        spend(1024)
        return createNode.apply(MEMFS, args)
      },
      expandFileStorage: (node: unknown, size: number) => {
        grow(node, size)
        return expandFileStorage.call(MEMFS, node, size)
      },
      resizeFileStorage: (node: unknown, size: number) => {
        grow(node, size)
        return resizeFileStorage.call(MEMFS, node, size)
      },
    })
  }

  open(code: string, stdin: string | undefined, deadline: number): SandboxOutcome {
    return this.#step({ type: "open", code, stdin }, deadline)
  }

  call(request: GuestCall, deadline: number): SandboxOutcome {
    return this.#step(request, deadline)
  }

  // Nothing holds the instance but this object.
  dispose(): void {}

  #step(request: unknown, deadline: number): SandboxOutcome {
    const { FS, _module } = this.#python
    this.#printed = []
    this.#room = this.#config.outputBytes
    const started = performance.now()
    let killed: Killed | undefined
    let crash: string | undefined
    let read: Record<string, unknown> | undefined
    let late = false
    try {
      FS.writeFile("/tmp/.step", JSON.stringify(request))
      const code = new TextEncoder().encode("import _sloth as _\n_.step()\n\0")
      const at = _module._malloc(code.length)
      _module.HEAPU8.set(code, at)
      this.#watchdog.arm(deadline)
      const status = _module._PyRun_SimpleString(at)
      late = this.#watchdog.disarm()
      if (this.#gate.pending !== undefined) throw this.#gate.pending
      if (status === 0) {
        const bytes = FS.readFile("/tmp/.outcome")
        FS.unlink("/tmp/.outcome")
        if (bytes.length > this.#config.outputBytes) throw new Killed("output-limit", "it returned more than the limit")
        read = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>
      }
    } catch (error) {
      late = this.#watchdog.disarm() || late
      killed = error instanceof Killed ? error : this.#gate.pending
      if (killed === undefined) crash = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
    }
    const base = {
      stdout: new TextDecoder().decode(Buffer.concat(this.#printed)),
      ms: performance.now() - started,
    }
    if (killed !== undefined) return { ...base, status: killed.status, message: killed.message }
    if (late) return { ...base, status: "timeout", message: "the time is up" }
    if (crash !== undefined) {
      // The instance is not to be trusted after a trap: nothing passes the gate any more.
      this.#gate.pending = new Killed("forbidden", "the interpreter has crashed")
      return { ...base, status: "error", name: "Crash", message: crash.slice(0, 2000) }
    }
    if (read?.["status"] === "ok") return { ...base, status: "ok", value: (read["value"] ?? null) as SandboxValue }
    if (read?.["status"] === "memory") return { ...base, status: "memory", message: "out of memory" }
    return {
      ...base,
      status: "error",
      name: typeof read?.["name"] === "string" ? read["name"] : "Error",
      message: typeof read?.["message"] === "string" ? read["message"] : "it left no result",
    }
  }
}
