import { readFileSync } from "node:fs"

/** Milliseconds between two looks: fresh memory costs a processor more than that to fill by the gigabyte. */
const EVERY_MS = 50
/** Bytes that a runtime may take beside its program: garbage that is not collected yet, and what it translates. */
const ROOM = 512 * 2 ** 20

/** The process that a chain of starters ends in. */
const lastOf = (pid: number): number => {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").split(" ").map(Number)
  return child === undefined || child === 0 ? pid : lastOf(child)
}

// `statm` counts in pages, and there are kernels with larger ones than 4 KiB. A process that has ended has no such line.
const residentBytes = (pid: number): number => {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? []
  if (kib === undefined) throw new Error("no resident memory")
  return Number(kib) * 1024
}

/**
 * Looks at the resident memory of a guest while it works, from outside: limits of address space do not fit runtimes, which reserve gigabytes that they never touch. The interpreter's own limit is
 * the program's; this one is for what gets out of the interpreter. Where the system tells nothing, nothing is watched. `kill` is called at most once; `stop` says whether it was.
 */
export const watchMemory = (
  pid: number | undefined,
  memoryBytes: number,
  kill: () => void,
): { readonly stop: () => boolean } => {
  let killed = false
  let guest: number | undefined
  let limit = Infinity
  const look = (): void => {
    try {
      if (pid === undefined) return
      if (guest === undefined) {
        const last = lastOf(pid)
        limit = residentBytes(last) + memoryBytes + ROOM
        guest = last
      } else if (!killed && residentBytes(guest) > limit) {
        killed = true
        kill()
      }
    } catch {
      // It has ended, or this system has no such files.
    }
  }
  look()
  const timer = setInterval(look, EVERY_MS)
  return {
    stop: () => {
      clearInterval(timer)
      return killed
    },
  }
}
