import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** Files that say what processors there are; tests point them elsewhere. */
export interface ProcessorFiles {
  /** Default `/sys/devices`. */
  readonly devices?: string
  /** Default `/proc/self/status`. */
  readonly status?: string
}

const read = (file: string): string | undefined => {
  try {
    return readFileSync(file, "utf8").trim()
  } catch {
    return undefined
  }
}

/** Numbers of a list such as `0-3,8`; undefined where it is none. */
const listed = (text: string | undefined): number[] | undefined => {
  if (text === undefined || !/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(text)) return undefined
  return text.split(",").flatMap((part) => {
    const [from, to = from] = part.split("-").map(Number) as [number, number?]
    return Array.from({ length: Math.max(0, to! - from + 1) }, (_, i) => from + i)
  })
}

interface Processor {
  readonly cpu: number
  /** How fast it is, in a unit of the system: larger is faster. */
  readonly capacity: number
  /** 0 for the first thread of a core, 1 for the second. */
  readonly sibling: number
  readonly node: number
}

/**
 * The processors that `threads` threads should run on, fastest first, or undefined where that is best left to the system: all are wanted, all are alike, or it does not say. Taken in this
 * order: the faster cores of a hybrid processor (`cpu_capacity`, or Intel's `cpu_core` and `cpu_atom`), one thread of a core before its second, and those of one memory node, the one with the
 * most of them, before others.
 * Source: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu.
 */
export const placement = (threads: number, files: ProcessorFiles = {}): number[] | undefined => {
  const devices = files.devices ?? "/sys/devices"
  const allowed = listed(/^Cpus_allowed_list:\s*(\S+)$/m.exec(read(files.status ?? "/proc/self/status") ?? "")?.[1])
  const online = listed(read(join(devices, "system/cpu/online")))
  if (allowed === undefined || online === undefined) return undefined
  const usable = online.filter((cpu) => allowed.includes(cpu))
  if (threads >= usable.length) return undefined
  const slow = new Set(listed(read(join(devices, "cpu_atom/cpus"))))
  const nodes = new Map<number, number>()
  try {
    for (const name of readdirSync(join(devices, "system/node")))
      if (/^node\d+$/.test(name))
        for (const cpu of listed(read(join(devices, "system/node", name, "cpulist"))) ?? [])
          nodes.set(cpu, Number(name.slice(4)))
  } catch {
    // A system without memory nodes.
  }
  const processors = usable.map((cpu): Processor => {
    const folder = join(devices, "system/cpu", `cpu${cpu}`)
    const capacity = Number(read(join(folder, "cpu_capacity")) ?? (slow.has(cpu) ? 512 : 1024))
    const siblings = listed(read(join(folder, "topology/thread_siblings_list"))) ?? [cpu]
    return {
      cpu,
      capacity: Number.isFinite(capacity) ? capacity : 1024,
      sibling: Math.max(0, siblings.filter((other) => usable.includes(other)).indexOf(cpu)),
      node: nodes.get(cpu) ?? 0,
    }
  })
  const alike = (value: (p: Processor) => number): boolean => new Set(processors.map(value)).size === 1
  if (alike((p) => p.capacity) && alike((p) => p.node)) return undefined
  // The node with the most of the cores that will be used goes first.
  const best = [...new Set(processors.map((p) => p.capacity))].toSorted((a, b) => b - a)[0]!
  const weight = (node: number): number =>
    processors.filter((p) => p.node === node && p.capacity === best && p.sibling === 0).length
  return processors
    .toSorted(
      (a, b) =>
        b.capacity - a.capacity ||
        weight(b.node) - weight(a.node) ||
        a.node - b.node ||
        a.sibling - b.sibling ||
        a.cpu - b.cpu,
    )
    .slice(0, threads)
    .map((p) => p.cpu)
}
