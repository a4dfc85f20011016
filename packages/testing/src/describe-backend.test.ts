import { describe, expect, test } from "bun:test"

import type { Backend, RequiredKernels } from "@sloth/core"
import { createReferenceBackend } from "@sloth/tensor"

import { describeBackend } from "./describe-backend.ts"
import { collectingApi, firstFailureOf } from "./internal/collecting-api.ts"

// The kit must notice a wrong kernel: each of these backends is the reference with one kernel changed.

type Name = keyof RequiredKernels
type Numbers = (...args: number[]) => void

const withKernel = (kernel: Name, change: (original: Numbers, backend: Backend) => Numbers): Backend => {
  const backend = createReferenceBackend()
  const original = backend.kernels[kernel] as Numbers
  return { ...backend, kernels: { ...backend.kernels, [kernel]: change(original, backend) } }
}

/** First failure in the kernel's own group of tests. */
const failure = (kernel: Name, make: () => Backend): Promise<string | undefined> => {
  const api = collectingApi()
  describeBackend("changed", make, { api })
  return firstFailureOf(api.tests.filter(({ path }) => path[1] === kernel))
}

/** Changes numbers of the arguments before the call. */
const changed =
  (change: (args: number[]) => number[]) =>
  (original: Numbers): Numbers =>
  (...args) =>
    original(...change(args))

const set =
  (index: number, value: (old: number) => number) =>
  (args: number[]): number[] =>
    args.with(index, value(args[index]!))

const names = Object.keys(createReferenceBackend().kernels) as Name[]

describe("a kernel that does nothing is noticed", () => {
  for (const kernel of names) {
    test(kernel, async () => {
      expect(await failure(kernel, () => withKernel(kernel, () => () => {}))).toBeString()
    })
  }
})

describe("a kernel that is slightly wrong is noticed", () => {
  const wrong: readonly (readonly [label: string, kernel: Name, (args: number[]) => number[]])[] = [
    ["alpha off by 1e-4", "matmul", set(8, (alpha) => alpha * 1.0001)],
    ["accumulate ignored", "linear", set(11, () => 0)],
    ["bias ignored", "linear", set(7, () => 0)],
    ["a rank too small", "linear", set(10, (r) => Math.max(0, r - 1))],
    ["accumulate ignored", "linearBackwardInput", set(10, () => 0)],
    ["seed off by one", "dropout", set(4, (seed) => seed + 1)],
    ["high half of the seed lost", "randomUniform", set(4, (seed) => seed % 2 ** 32)],
    ["stream off by one", "randomNormal", set(5, (stream) => (stream + 1) % 2 ** 32)],
    ["eps ten times larger", "rmsNorm", set(6, (eps) => eps * 10)],
    ["offset ignored", "rmsNorm", set(7, () => 0)],
    ["dw lost", "rmsNormBackward", set(1, () => 0)],
    ["always forward", "rope", set(9, () => 0)],
    ["the other gelu", "gatedActivation", set(3, (act) => (act === 1 ? 2 : act))],
    ["the other gelu's gradient", "gatedActivationBackward", set(5, (act) => (act === 2 ? 1 : act))],
    ["scale off by 1e-4", "attention", set(14, (scale) => scale * 1.0001)],
    ["window one too wide", "attention", set(15, (window) => (window > 0 ? window + 1 : 0))],
    ["soft cap ignored", "attention", set(16, () => 0)],
    ["sinks ignored", "attention", set(17, () => 0)],
    ["window one too narrow", "attentionBackward", set(20, (window) => (window > 1 ? window - 1 : window))],
    ["soft cap ignored", "attentionBackward", set(21, () => 0)],
    ["soft cap ignored", "linearCrossEntropy", set(11, () => 0)],
    ["logit scale ignored", "linearCrossEntropy", set(12, () => 1)],
    ["entropy lost", "linearLogprobs", set(2, () => 0)],
    ["dh lost", "linearLogprobs", set(3, () => 0)],
    ["dw lost", "linearLogprobsBackward", set(1, () => 0)],
    ["gradient by the entropy lost", "linearLogprobsBackward", set(4, () => 0)],
    ["beta ignored", "divergence", set(7, () => 0)],
    ["weight decay ignored", "adamw", set(9, () => 0)],
    ["step off by one", "adamw", set(10, (step) => step + 1)],
    ["gradient scale ignored", "adamw8bit", set(13, () => 1)],
    ["window ignored", "pagedAttention", set(16, () => 0)],
    ["row stride ignored", "cacheWrite", (args) => args.with(4, args[9]!)],
    ["history ignored", "sample", (args) => args.with(8, 0)],
    ["accumulate ignored", "scatterRows", set(6, () => 1)],
  ]
  for (const [label, kernel, change] of wrong) {
    test(`${kernel}: ${label}`, async () => {
      expect(await failure(kernel, () => withKernel(kernel, changed(change)))).toBeString()
    })
  }

  test("results that differ from run to run", async () => {
    let calls = 0
    const make = (): Backend =>
      withKernel(
        "scale",
        (original) =>
          (...args) =>
            original(...args.with(2, args[2]! * (1 + (calls++ % 2) * 1e-7))),
      )
    expect(await failure("scale", make)).toBeString()
  })

  test("a write behind the end of the output", async () => {
    const make = (): Backend =>
      withKernel("fill", (original, backend) => (out, value, n) => {
        const room = backend.memory.bytes(out!) / 4
        original(out!, value!, Math.min(room, n! + 1))
      })
    expect(await failure("fill", make)).toBeString()
  })
})

test("skips are reported with their reasons", () => {
  const api = collectingApi()
  describeBackend("absent", () => createReferenceBackend(), { available: "no such device", api })
  expect(api.tests.map(({ path, skipped }) => [path.join(" > "), skipped])).toEqual([
    ["absent > backend conformance (no such device)", true],
  ])
  const partial = collectingApi()
  describeBackend("partial", () => createReferenceBackend(), {
    skip: [{ kernel: "adamw8bit", reason: "no bytes" }],
    api: partial,
  })
  expect(partial.tests.filter(({ skipped }) => skipped).map(({ path }) => path.at(-1))).toEqual([
    "adamw8bit (no bytes)",
  ])
})
