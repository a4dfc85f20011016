import { readFileSync } from "node:fs"
import { freemem } from "node:os"

/** Resident bytes of this process now. */
export const residentBytes = (): number => process.memoryUsage().rss

let largestSeen = 0

/** Largest resident size of this process so far, in bytes; where the system does not keep it, the largest that was seen here. */
export const peakResidentBytes = (): number => {
  if (typeof process.resourceUsage === "function") return process.resourceUsage().maxRSS * 1024
  largestSeen = Math.max(largestSeen, residentBytes())
  return largestSeen
}

/** Bytes of a device that this process may use: a container's limit counts. */
export const deviceMemory = (deviceBytes: number): number => {
  // Node says 0 or 2^64 where there is no limit.
  const limit = process.constrainedMemory?.() ?? 0
  return limit > 0 && limit < deviceBytes ? limit : deviceBytes
}

/** Bytes that programs could have at the moment. */
export const availableMemory = (): number => {
  try {
    const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]
    if (kilobytes !== undefined) return Number(kilobytes) * 1024
  } catch {
    // Not Linux.
  }
  return freemem()
}
