import type { Backend } from "@sloth/core"
import { createReferenceBackend } from "@sloth/tensor"

/** A backend that tests run on. */
export interface TestBackend {
  readonly name: string
  /** Why it cannot run here; undefined when it can. */
  readonly missing: string | undefined
  create(options?: { readonly threads?: number }): Promise<Backend>
}

const cpu = async (options: { readonly threads?: number } = {}): Promise<Backend> =>
  (await import("@sloth/kernels-cpu")).createCpuBackend(options)

const cpuMissing = await cpu().then(
  (backend) => void backend[Symbol.dispose](),
  (error: unknown) => (error instanceof Error ? error.message : String(error)),
)

/** The reference backend, and the native one where it loads. */
export const backends: readonly TestBackend[] = [
  { name: "reference", missing: undefined, create: () => Promise.resolve(createReferenceBackend()) },
  { name: "cpu", missing: cpuMissing, create: cpu },
]
