import { readFileSync } from "node:fs"
import { availableParallelism, cpus, totalmem } from "node:os"

import type { BackendAvailability } from "@sloth/core"

import { loadAddon } from "./internal/loader.ts"

/** What the native CPU backend would use on this machine. */
export interface CpuInfo {
  /** Processor name as the system reports it. */
  readonly description: string
  /** Instruction sets that are built in and that this processor has, best first. */
  readonly isas: readonly string[]
  /** Threads that the process may run at once; the default of `threads`. */
  readonly threads: number
  /** Bytes of memory that the process may use: the machine's, or the control group's limit where that is lower. */
  readonly memoryBytes: number
  /** File of the loaded addon. */
  readonly addonPath: string
  /** True when the native sources beside it have changed since it was built. */
  readonly stale: boolean
}

/** Bytes of memory that this process may use. */
function usableMemory(): number {
  const total = totalmem()
  for (const file of ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]) {
    try {
      const limit = Number(readFileSync(file, "utf8").trim())
      if (Number.isSafeInteger(limit) && limit > 0 && limit < total) return limit
    } catch {
      // No such control group file: the machine's memory counts.
    }
  }
  return total
}

/** Describes the processor and the loaded addon. Errors: SLOTH_NATIVE_UNAVAILABLE when there is no addon for this machine. */
export function cpuInfo(): CpuInfo {
  const { addon, path, stale } = loadAddon()
  return {
    description: cpus()[0]?.model.trim() || process.arch,
    isas: addon.isas(),
    threads: availableParallelism(),
    memoryBytes: usableMemory(),
    addonPath: path,
    stale,
  }
}

/** Whether the native backend can run here, and why not. */
export function probeCpu(): BackendAvailability {
  try {
    const info = cpuInfo()
    return { available: true, description: `${info.description}, ${info.isas[0]}, ${info.threads} threads` }
  } catch (error) {
    return { available: false, reason: error instanceof Error ? error.message : String(error) }
  }
}
