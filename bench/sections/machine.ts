import { cpus, loadavg, release, totalmem, type } from "node:os"
import { cpuInfo } from "@sloth/kernels-cpu"
import type { BenchContext } from "../lib/context.ts"
import type { MachineReport } from "../lib/figures.ts"
import { spread, type Spread } from "../lib/stats.ts"

const UNITS: Readonly<Record<string, { unit: string; name: string }>> = {
  f32: { unit: "GFLOP/s", name: "f32 multiply-add" },
  int8: { unit: "GOP/s", name: "int8 dot products" },
  bf16: { unit: "GFLOP/s", name: "bf16 dot products" },
  read: { unit: "GB/s", name: "reading memory" },
}

/** Measures the limits of the machine for 1, 2, 4, ... threads and for the number in use. */
export const machine = async ({ peaks, threads, quick, add }: BenchContext): Promise<MachineReport> => {
  const loadAtStart = loadavg()
  const counts = new Set<number>([threads])
  for (let n = 1; n <= threads; n *= 2) counts.add(n)
  const limits: Record<string, { instructions: string; byThreads: Record<number, Spread> }> = {}
  for (const [kind, instructions] of peaks.kinds) {
    const byThreads: Record<number, Spread> = {}
    for (const n of [...counts].sort((a, b) => a - b)) {
      const values: number[] = []
      for (let i = 0; i < (quick ? 3 : 7); i++) values.push((await peaks.measure(kind, n, quick ? 0.03 : 0.1)) / 1e9)
      byThreads[n] = spread(values)
      add({
        section: "machine",
        group: "limits",
        name: `${UNITS[kind]!.name} (${instructions}), ${n} thread${n === 1 ? "" : "s"}`,
        value: byThreads[n],
        unit: UNITS[kind]!.unit,
      })
    }
    limits[kind] = { instructions, byThreads }
  }
  const info = cpuInfo()
  return {
    processor: cpus()[0]?.model.trim() ?? process.arch,
    system: `${type()} ${release()} ${process.arch}`,
    runtime: process.versions["bun"] === undefined ? `node ${process.versions.node}` : `bun ${process.versions["bun"]}`,
    memoryBytes: totalmem(),
    isa: info.isas[0]!,
    isas: info.isas,
    threads,
    loadAtStart,
    limits,
  }
}
