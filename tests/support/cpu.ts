import type { Backend, BackendOptions } from "@sloth/core"

/** The native CPU backend, or undefined where its addon cannot be loaded. */
export const cpuBackend = async (options: BackendOptions = {}): Promise<Backend | undefined> => {
  const { createCpuBackend, probeCpu } = await import("@sloth/kernels-cpu")
  return (await probeCpu()).available ? createCpuBackend(options) : undefined
}
