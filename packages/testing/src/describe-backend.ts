import type { Backend, RequiredKernels } from "@sloth/core"
import { createReferenceBackend } from "@sloth/tensor"

import { check, checkFails } from "./internal/assert.ts"
import { captureChecks } from "./internal/capture-checks.ts"
import { attentionCases } from "./internal/cases/attention.ts"
import { elementwiseCases } from "./internal/cases/elementwise.ts"
import { lossCases } from "./internal/cases/loss.ts"
import { optimizerCases } from "./internal/cases/optimizer.ts"
import { productCases, rowCases } from "./internal/cases/products.ts"
import { samplingCases } from "./internal/cases/sampling.ts"
import { transformerCases } from "./internal/cases/transformer.ts"
import { dataChecks, memoryChecks } from "./internal/memory-checks.ts"
import { F32 } from "./internal/tolerance.ts"
import { Twin, type KernelCase } from "./internal/twin.ts"
import { defaultTestApi, type TestApi } from "./test-api.ts"

/** Settings of {@link describeBackend}. */
export interface DescribeBackendOptions {
  /** Kernels that the backend lacks on purpose; each is reported as skipped with its reason. */
  readonly skip?: readonly { readonly kernel: keyof RequiredKernels; readonly reason: string }[]
  /** False or a reason when the backend cannot run here: everything is then reported as skipped. */
  readonly available?: boolean | string
  /**
   * Makes a second backend that must give the same bits as the first, such as one with another number of threads. Without it the first is run twice.
   */
  readonly twin?: () => Promise<Backend> | Backend
  /** Relative precision of the backend's products; 2^-24 (f32) when absent, 2^-8 for bf16 products. */
  readonly productEpsilon?: number
  /** Functions of the test runner; `bun:test` or `node:test` when absent. */
  readonly api?: TestApi
}

const cases: Record<keyof RequiredKernels, KernelCase[]> = {
  ...elementwiseCases,
  ...productCases,
  ...rowCases,
  ...transformerCases,
  ...attentionCases,
  ...lossCases,
  ...optimizerCases,
  ...samplingCases,
}

/**
 * Declares the conformance tests of a backend: every kernel against the reference backend on odd shapes, in every weight format and with every optional
 * argument, within tolerances that follow from f32 rounding and the length of the sums; the same bits on a second run; argument checks; memory; and no live
 * buffer at the end. Call it at the top level of a test file.
 */
export function describeBackend(
  name: string,
  make: () => Promise<Backend> | Backend,
  options: DescribeBackendOptions = {},
): void {
  const { describe, test } = options.api ?? defaultTestApi()
  const { available = true } = options
  if (available !== true) {
    const reason = available === false ? "not available here" : available
    describe(name, () => test.skip(`backend conformance (${reason})`, () => {}))
    return
  }

  // Made by the first test that runs, closed by the last.
  let opened: Promise<readonly [Backend, Backend]> | undefined
  const lanes = (): Promise<readonly [Backend, Backend]> => {
    opened ??= (async () => {
      const first = await make()
      return [first, options.twin === undefined ? first : await options.twin()] as const
    })()
    return opened
  }
  const reference = createReferenceBackend({ float64: true })

  const run = async (kernelCase: KernelCase, argumentChecksOf?: keyof RequiredKernels): Promise<void> => {
    const twin = new Twin(reference, await lanes(), options.productEpsilon ?? F32)
    twin.argumentChecksOf = argumentChecksOf
    try {
      await kernelCase.run(twin)
    } finally {
      twin.release()
    }
  }

  describe(name, () => {
    describe("memory", () => {
      for (const [label, body] of memoryChecks) test(label, async () => body((await lanes())[0]))
    })

    describe("capture", () => {
      for (const [label, body] of captureChecks) test(label, async () => body((await lanes())[0]))
    })

    for (const [kernel, list] of Object.entries(cases) as [keyof RequiredKernels, KernelCase[]][]) {
      describe(kernel, () => {
        const skipped = options.skip?.find((item) => item.kernel === kernel)
        if (skipped !== undefined) {
          test.skip(`${kernel} (${skipped.reason})`, () => {})
          return
        }
        for (const item of list) test(item.label, () => run(item))
        // The last case has the largest buffers, so that every one can be too small.
        test("refuses bad arguments", () => run(list.at(-1)!, kernel))
      })
    }

    describe("data outside a buffer", () => {
      const skipped = new Set<string>((options.skip ?? []).map((item) => item.kernel))
      for (const [label, body] of dataChecks) {
        if (skipped.has(label.split(":")[0]!)) continue
        test(label, async () => {
          // A backend of its own, because an error in the queue ends its use.
          using backend = await make()
          await checkFails(
            async () => {
              body(backend)
              await backend.synchronize()
            },
            (code) => code === "SLOTH_KERNEL_DATA" || code === "SLOTH_KERNEL_ARGUMENT",
            label,
          )
        })
      }
    })

    test("no buffer is left alive, and a closed backend says so", async () => {
      const [first, second] = await lanes()
      await first.synchronize()
      await second.synchronize()
      for (const backend of new Set([first, second, reference])) {
        const { liveBuffers, liveBytes, mappedBytes } = backend.memory.stats()
        check(liveBuffers === 0, `${liveBuffers} buffers are alive on ${backend.name}`)
        check(liveBytes === 0 && mappedBytes === 0, `${liveBytes} bytes live, ${mappedBytes} mapped on ${backend.name}`)
        backend[Symbol.dispose]()
        await checkFails(
          () => backend.memory.alloc(4),
          (code) => code === "SLOTH_BACKEND_CLOSED",
          `alloc on the closed ${backend.name}`,
        )
      }
    })
  })
}
