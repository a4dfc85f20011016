import { randomBytes } from "node:crypto"
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { hostname } from "node:os"
import { SlothError } from "../errors.ts"
import { fileError, systemCode } from "../file-error.ts"

/** What the lock file says about its holder. */
interface Holder {
  readonly pid: number
  readonly host: string
  /** Start of the process in the system's own units, where it can be had: tells a reused pid apart. */
  readonly started: string | undefined
  readonly token: string
  readonly since: string
}

/** A held lock. */
export interface RunLock {
  release(): void
}

/** Tokens that this process holds, shared by several copies of this package. */
const heldTokens = (): Set<string> => {
  const key = Symbol.for("@sloth/core/run-locks")
  const place = globalThis as { [key]?: Set<string> }
  place[key] ??= new Set()
  return place[key]
}

/** Linux gives each process a start time; a pid with another start time is another process. */
const processStart = (pid: number): string | undefined => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8")
    // the name in parentheses may hold spaces: count fields after it; the start is field 22 of the line
    return text.slice(text.lastIndexOf(")") + 2).split(" ")[19]
  } catch {
    return undefined
  }
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return systemCode(error) === "EPERM"
  }
}

const readHolder = (path: string): Holder | undefined => {
  try {
    const value = JSON.parse(readFileSync(path, "utf8")) as Partial<Holder> | null
    if (typeof value?.pid !== "number" || typeof value.token !== "string" || typeof value.host !== "string")
      return undefined
    return { pid: value.pid, host: value.host, started: value.started, token: value.token, since: String(value.since) }
  } catch {
    return undefined
  }
}

const isStale = (holder: Holder): boolean => {
  if (holder.host !== hostname()) return false // its process cannot be looked up from here
  if (holder.pid === process.pid && heldTokens().has(holder.token)) return false
  if (!isAlive(holder.pid)) return true
  const started = processStart(holder.pid)
  if (holder.started !== undefined && started !== undefined) return holder.started !== started
  // our own pid with a token that is not ours: the pid was reused, as it is after a container restarts
  return holder.pid === process.pid
}

const olderThan = (path: string, seconds: number): boolean => {
  try {
    return Date.now() - statSync(path).mtimeMs > seconds * 1000
  } catch {
    return false
  }
}

const tryCreate = (path: string, text: string): boolean => {
  try {
    writeFileSync(path, text, { flag: "wx" })
    return true
  } catch (error) {
    if (systemCode(error) === "EEXIST") return false
    throw fileError(error, path, "write")
  }
}

/**
 * Takes the lock of a run folder; a lock whose process is gone is taken over.
 * Errors: SLOTH_RUN_LOCKED with the holder's pid, and those of `fileError`.
 */
export const acquireRunLock = (path: string, directory: string): RunLock => {
  const token = randomBytes(16).toString("hex")
  const holder: Holder = {
    pid: process.pid,
    host: hostname(),
    started: processStart(process.pid),
    token,
    since: new Date().toISOString(),
  }
  const text = `${JSON.stringify(holder)}\n`
  const takeover = `${path}.takeover`
  const take = (): RunLock => {
    heldTokens().add(token)
    return {
      release() {
        heldTokens().delete(token)
        // only our own: after a takeover by mistake of a person the file is someone else's
        if (readHolder(path)?.token === token) rmSync(path, { force: true })
      },
    }
  }
  if (tryCreate(path, text)) return take()
  const other = readHolder(path)
  // an unreadable lock is one being written this instant, or one that a crash cut short: age tells
  const stale = other === undefined ? !existsSync(path) || olderThan(path, 5) : isStale(other)
  if (stale) {
    // one process at a time may remove a stale lock, else a second could remove the first one's new lock
    if (olderThan(takeover, 10)) rmSync(takeover, { force: true })
    if (tryCreate(takeover, text)) {
      try {
        const again = readHolder(path)
        if (again === undefined || again.token === other?.token) rmSync(path, { force: true })
        if (tryCreate(path, text)) return take()
      } finally {
        rmSync(takeover, { force: true })
      }
    }
  }
  const now = readHolder(path) ?? other
  throw new SlothError("SLOTH_RUN_LOCKED", {
    what: `Another run is writing to ${directory}.`,
    why:
      now === undefined
        ? "Its lock was taken this instant."
        : `Process ${now.pid} on ${now.host} has held it since ${now.since}.`,
    next:
      now !== undefined && now.host !== hostname()
        ? `Wait for it, choose another folder, or, if that machine no longer runs it, delete ${path}.`
        : "Wait for it to end or choose another folder with --run.",
    fields: { path: directory, lock: path, pid: now?.pid, host: now?.host },
  })
}
