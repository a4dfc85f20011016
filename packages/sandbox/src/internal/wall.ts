import { spawnSync } from "node:child_process"
import { existsSync, realpathSync } from "node:fs"
import { dirname, join } from "node:path"
import { platform } from "node:process"
import { fileURLToPath } from "node:url"

/** What the operating system keeps from the processes in which programs run, beside what the interpreters and the runtime do. */
export interface SandboxWall {
  /** No network, not even this machine's own. */
  readonly network: boolean
  /** Other processes can be neither seen nor signalled. */
  readonly processes: boolean
  /** No file can be written to. */
  readonly writing: boolean
  /** No file can be read but the interpreter's own, installed packages beside it, and the programs and libraries of the system: no home, no project, no data, no /etc. */
  readonly reading: boolean
  /** A process that grows far beyond its program's memory is ended. */
  readonly memory: boolean
  /** The programs that make it; empty where the system offers nothing that needs no rights. */
  readonly by: readonly string[]
}

/** A wall and the words that go before a command to stand behind it. */
export interface FoundWall extends SandboxWall {
  /** `making` says that the process has a file to write, `readable` what it reads besides. */
  prefix(making: boolean, readable?: readonly string[]): readonly string[]
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

// The same, and a root of its own: root in a namespace that maps to who started it, without any right once the mounts are made. /sys is there everywhere and nothing below it is needed, so
// that the new root can lie there.
const OWN_ROOT = NAMESPACES.map((word) => (word === "--map-current-user" ? "--map-root-user" : word)).toSpliced(
  -1,
  0,
  "--mount",
)
const MAKE_ROOT = `set -e
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs -o size=1m,mode=755 sandbox /sys
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then
    mkdir -p "/sys$1"
    mount --rbind "$1" "/sys$1"
  elif [ -e "$1" ]; then
    mkdir -p "/sys\${1%/*}"
    : > "/sys$1"
    mount --bind "$1" "/sys$1"
  fi
  if [ -e "$1" ]; then mount -o remount,bind,ro "/sys$1" 2>/dev/null || :; fi
  shift
done
shift
mkdir -p /sys/proc /sys/dev /sys/tmp
mount -t proc proc /sys/proc
for f in null zero urandom; do : > "/sys/dev/$f"; mount --bind "/dev/$f" "/sys/dev/$f"; done
exec chroot /sys setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"`

const SYSTEM = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/etc/ld.so.cache"]

/** Folders named node_modules from a path up to the root: where packages look for others. */
const modulesAbove = (path: string): string[] => {
  const parent = dirname(path)
  const here = [join(path, "node_modules")].filter((folder) => existsSync(folder))
  return parent === path ? here : [...here, ...modulesAbove(parent)]
}

const real = (path: string): string => {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}

/** What a guest must be able to read, without what lies in something else of it. */
const readableFor = (more: readonly string[]): string[] => {
  const own = fileURLToPath(new URL("../../", import.meta.url)).replace(/\/$/, "")
  const packages = [own, real(own), ...more, ...more.map(real)]
  const all = [
    ...SYSTEM,
    process.execPath,
    real(process.execPath),
    ...packages,
    ...packages.flatMap((path) => modulesAbove(path)),
  ].filter((path) => existsSync(path))
  return [...new Set(all)].filter((path) => !all.some((other) => path.startsWith(`${other}/`)))
}

const ownRoot = (readable: readonly string[]): readonly string[] => [
  ...OWN_ROOT,
  "sh",
  "-c",
  MAKE_ROOT,
  "sh",
  ...readableFor(readable),
  "--",
]

/** True where the runtime starts behind these words. */
const starts = (prefix: readonly string[]): boolean => {
  const [program, ...args] = [...prefix, process.execPath, "--version"]
  const { status, error } = spawnSync(program!, args, { timeout: 10_000, stdio: "ignore", env: { NO_COLOR: "1" } })
  return error === undefined && status === 0
}

let found: FoundWall | undefined

const wallOf = (namespaces: boolean, limits: boolean, reading: boolean): FoundWall => ({
  network: namespaces,
  processes: namespaces,
  writing: limits,
  reading,
  memory: existsSync(`/proc/${process.pid}/task/${process.pid}/children`),
  by: [...(namespaces ? ["unshare"] : []), ...(limits ? ["prlimit"] : []), ...(reading ? ["chroot"] : [])],
  prefix: (making, readable = []) => [
    ...(limits ? (making ? LIMITS_OF_MAKER : LIMITS) : []),
    // What makes an image runs no program of anyone, and has a file to write.
    ...(reading && !making ? ownRoot(readable) : namespaces ? NAMESPACES : []),
  ],
})

/**
 * The wall of this machine, tried once by starting the runtime behind it. Only Linux offers one without rights: user namespaces, where they are allowed, limits of files, and a root of its own
 * in such a namespace.
 */
export const findWall = (): FoundWall => {
  if (found !== undefined) return found
  const linux = platform === "linux"
  const namespaces = linux && starts(NAMESPACES)
  const limits = linux && starts(LIMITS)
  const reading = namespaces && starts([...(limits ? LIMITS : []), ...ownRoot([])])
  found = wallOf(namespaces, limits, reading)
  return found
}

/** Gives up the own root of a wall, where a guest has not started behind it: packages may lie where no one looks for them. Returns what takes it back. */
export const withoutOwnRoot = (wall: FoundWall): (() => void) => {
  found = wallOf(wall.processes, wall.writing, false)
  return () => {
    found = wall
  }
}
