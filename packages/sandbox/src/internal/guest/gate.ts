/**
 * A WebAssembly module reaches the host through its imports and through nothing else. The gate stands in front of all of them: once it is closed, only those
 * that an interpreter needs to compute pass (its own files in memory, clocks, random bytes, growing its memory, signals); any other ends the program.
 * So neither a forgotten module, `ctypes`, nor a proxy to a JavaScript object found on the heap leads out.
 */

/** Thrown through the interpreter to end its program. */
export class Killed extends Error {
  readonly status: "forbidden" | "memory" | "output-limit"
  constructor(status: Killed["status"], message: string) {
    super(message)
    this.status = status
  }
}

const PASS = new Set([
  // WASI and the system calls on the file system in memory
  "environ_sizes_get",
  "environ_get",
  "fd_close",
  "fd_read",
  "fd_write",
  "fd_pread",
  "fd_pwrite",
  "fd_seek",
  "fd_sync",
  "fd_fdstat_get",
  "clock_res_get",
  "clock_time_get",
  "random_get",
  ...[
    "openat fstat64 stat64 newfstatat lstat64 faccessat chdir fchdir chmod fchmod fchmodat2 fchown32 fchownat dup dup3 fcntl64 fdatasync",
    "ftruncate64 truncate64 getcwd getdents64 mkdirat poll fadvise64 fallocate readlinkat unlinkat rmdir renameat statfs64 fstatfs64 symlinkat",
    "utimensat ioctl getuid32_js umask_js",
  ].flatMap((names) => names.split(" ").map((name) => `__syscall_${name}`)),
  "_try_fcntl64",
  // time, memory, the interpreter's own machinery
  "emscripten_date_now",
  "emscripten_get_now",
  "emscripten_resize_heap",
  "emscripten_get_heap_max",
  "_tzset_js",
  "_timegm_js",
  "_mktime_js",
  "_localtime_js",
  "_gmtime_js",
  "_mmap_js",
  "_munmap_js",
  "_msync_js",
  "_PyEM_TrampolineCall_JS",
  "_Py_CheckEmscriptenSignals_Helper",
  "_Py_emscripten_runtime",
  "_emscripten_get_progname",
  "_emscripten_throw_longjmp",
  "can_run_sync_js",
])

/** Imports behind a gate that can be closed. */
export class Gate {
  #closed = false
  /** Set to end the program at its next call of the host. */
  pending: Killed | undefined
  /** Most bytes of memory an instance may have. */
  readonly #memoryBytes: number

  constructor(memoryBytes: number) {
    this.#memoryBytes = memoryBytes
  }

  close(): void {
    this.#closed = true
  }

  /** The imports as the instance gets them. */
  wrap(imports: Imports | undefined): Imports | undefined {
    // Pyodide also instantiates a few small modules of its own, some without imports.
    if (imports === undefined) return undefined
    return Object.fromEntries(
      Object.entries(imports).map(([name, module]) => [name, name.startsWith("GOT") ? module : this.#module(module)]),
    )
  }

  #module(module: ModuleImports): ModuleImports {
    const made = new Map<string | symbol, unknown>()
    return new Proxy(module, {
      get: (target, name) => {
        if (made.has(name)) return made.get(name)
        const found: unknown = Reflect.get(target, name)
        const wrapped = typeof found === "function" ? this.#import(String(name), found as Import) : found
        made.set(name, wrapped)
        return wrapped
      },
    })
  }

  #import(name: string, found: Import): Import {
    // Calls through the function table stay inside; there are millions of them.
    if (name.startsWith("invoke_")) return found
    const limited: Import =
      name === "emscripten_resize_heap"
        ? (size: unknown) => (Number(size) >>> 0 > this.#memoryBytes ? 0 : found(size))
        : found
    const passes = PASS.has(name)
    return (...args: unknown[]) => {
      if (this.#closed) {
        if (this.pending !== undefined) throw this.pending
        if (!passes) throw (this.pending = new Killed("forbidden", `it reached for the host (${name})`))
      }
      const result = limited(...args)
      if (this.#closed && this.pending !== undefined) throw this.pending
      return result
    }
  }
}

type Import = (...args: unknown[]) => unknown
type ModuleImports = Record<string, unknown>
/** What `WebAssembly.instantiate` takes. */
export type Imports = Record<string, ModuleImports>
