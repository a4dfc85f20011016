import type { Backend } from "@sloth/core"

import { describeBackend } from "./describe-backend.ts"

type Cpu = typeof import("@sloth/kernels-cpu")

// The addon needs a compiler or a prebuilt binary; without either the reference backend alone is tested.
const cpu: Cpu | string = await import("@sloth/kernels-cpu").then(
  async (module) => {
    try {
      using _backend: Backend = await module.createCpuBackend({ threads: 1 })
      return module
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  },
  (error: unknown) => (error instanceof Error ? error.message : String(error)),
)

if (typeof cpu === "string") {
  describeBackend("the CPU backend", () => Promise.reject(new Error(cpu)), { available: cpu })
} else {
  for (const isa of cpu.cpuInfo().isas) {
    // Two threads must give the bits of one.
    describeBackend(`the CPU backend, ${isa}`, () => cpu.createCpuBackend({ isa, threads: 1 }), {
      twin: () => cpu.createCpuBackend({ isa, threads: 2 }),
    })
  }
}
