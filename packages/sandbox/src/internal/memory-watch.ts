import { readFileSync } from "node:fs"

/** Milliseconds between two looks: fresh memory costs a processor more than that to fill by the gigabyte. */
const EVERY_MS = 50
/** Bytes that a runtime may take beside its program: garbage that is not collected yet, and what it translates. */
const ROOM = 512 * 2 ** 20

const PAGE = 4096

/** The process that a chain of starters ends in. */
const lastOf = (pid: number): number => {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").split(" ").map(Number)
  return child === undefined || child === 0 ? pid : lastOf(child)
}

const residentBytes = (pid: number): number => Number(readFileSync(`/proc/${pid}/statm`, "latin1").split(" ")[1]) * PAGE

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
        guest = lastOf(pid)
        limit = residentBytes(guest) + memoryBytes + ROOM
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
