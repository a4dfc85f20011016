import { spawnSync } from "node:child_process"
import { platform } from "node:process"

/** What the operating system keeps from the processes in which programs run, beside what the interpreters and the runtime do. */
export interface SandboxWall {
  /** No network, not even this machine's own. */
  readonly network: boolean
  /** Other processes can be neither seen nor signalled. */
  readonly processes: boolean
  /** No file can be written to. */
  readonly writing: boolean
  /** The programs that make it; empty where the system offers nothing that needs no rights. */
  readonly by: readonly string[]
}

/** A wall and the words that go before a command to stand behind it. */
export interface FoundWall extends SandboxWall {
  /** `making` says that the process has a file to write. */
  prefix(making: boolean): readonly string[]
}

// A size limit of 0 stops every write to a file; pipes have none.
const LIMITS = ["prlimit", "--core=0", "--fsize=0", "--"]
const LIMITS_OF_MAKER = ["prlimit", "--core=0", "--"]
// The namespaces of a user who is nobody outside: no interface but a dead loopback, no process but its own. The child dies with its parent.
const NAMESPACES = [
  "unshare",
  "--user",
  "--map-current-user",
  "--net",
  "--ipc",
  "--pid",
  "--fork",
  "--kill-child=SIGKILL",
  "--",
]

/** True where the runtime starts behind these words. */
const starts = (prefix: readonly string[]): boolean => {
  const [program, ...args] = [...prefix, process.execPath, "--version"]
  const { status, error } = spawnSync(program!, args, { timeout: 10_000, stdio: "ignore", env: { NO_COLOR: "1" } })
  return error === undefined && status === 0
}

let found: FoundWall | undefined

/** The wall of this machine, tried once by starting the runtime behind it. Only Linux offers one without rights: user namespaces, where they are allowed, and limits of files. */
export const findWall = (): FoundWall => {
  if (found !== undefined) return found
  const linux = platform === "linux"
  const namespaces = linux && starts(NAMESPACES)
  const limits = linux && starts(LIMITS)
  found = {
    network: namespaces,
    processes: namespaces,
    writing: limits,
    by: [...(namespaces ? ["unshare"] : []), ...(limits ? ["prlimit"] : [])],
    prefix: (making) => [...(limits ? (making ? LIMITS_OF_MAKER : LIMITS) : []), ...(namespaces ? NAMESPACES : [])],
  }
  return found
}
