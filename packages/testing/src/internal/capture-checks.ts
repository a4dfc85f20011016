import type { Backend, BufferHandle } from "@sloth/core"

import { check, checkThrows } from "./assert.ts"

const floats = async (backend: Backend, handle: BufferHandle): Promise<Float32Array> =>
  new Float32Array((await backend.memory.read(handle)).buffer)

/** Checks of recorded programs; each frees what it makes. */
export const captureChecks: readonly (readonly [label: string, run: (backend: Backend) => Promise<void>])[] = [
  [
    "a program repeats its calls with what its inputs hold by then",
    async (backend) => {
      const { memory, kernels } = backend
      // One size below and one above what backends may keep in lists of small blocks.
      for (const n of [5, 40_000]) {
        const before = memory.stats()
        const [input, kept] = [memory.alloc(n * 4), memory.alloc(n * 4)]
        memory.write(input, new Float32Array(n).fill(1))
        memory.write(kept, new Float32Array(n).fill(100))
        let out = 0
        const program = backend.capture(() => {
          const first = memory.alloc(n * 4)
          kernels.scale(first, input, 3, n, 0) // 3 x
          const second = memory.alloc(n * 4)
          kernels.add(second, first, kept, n) // 3 x + kept
          memory.free(first)
          const third = memory.alloc(n * 4) // may lie where `first` lay
          kernels.mul(third, second, input, n)
          out = memory.alloc(n * 4)
          kernels.add(out, third, second, n) // (x + 1)(3 x + kept)
          kernels.scale(kept, kept, 2, n, 0)
          memory.free(second)
          memory.free(third)
        })
        check(program.calls === 5, `the program holds ${program.calls} calls, not 5`)
        check(
          (await floats(backend, kept)).every((v) => v === 100),
          "recording must not run the calls",
        )
        program.run()
        // Others must get none of the memory that the program uses.
        const others = Array.from({ length: 6 }, () => memory.alloc(n * 4))
        for (const h of others) kernels.fill(h, -1, n)
        check(
          (await floats(backend, out)).every((v) => v === 206),
          `after one run: ${(await floats(backend, out))[0]}`,
        )
        memory.write(input, new Float32Array(n).fill(2))
        program.run()
        memory.write(input, new Float32Array(n).fill(-3))
        program.run()
        check(
          (await floats(backend, out)).every((v) => v === -2 * 391),
          "after the third run",
        )
        check(
          (await floats(backend, kept)).every((v) => v === 800),
          "what lies outside changes with every run",
        )
        for (const h of others)
          check(
            (await floats(backend, h)).every((v) => v === -1),
            "another buffer was written",
          )
        for (const h of [...others, input, kept, out]) memory.free(h)
        program[Symbol.dispose]()
        program[Symbol.dispose]()
        checkThrows(() => program.run(), ["SLOTH_PROGRAM_DISPOSED"], "a run after dispose")
        await backend.synchronize()
        const after = memory.stats()
        check(after.liveBytes === before.liveBytes, `${after.liveBytes - before.liveBytes} bytes stayed alive`)
        check(after.liveBuffers === before.liveBuffers, "buffers stayed alive")
      }
    },
  ],
  [
    "a program that is disposed still finishes its runs",
    async (backend) => {
      const { memory, kernels } = backend
      const n = 10_000
      const total = memory.alloc(n * 4)
      kernels.fill(total, 0, n)
      const program = backend.capture(() => {
        const one = memory.alloc(n * 4)
        kernels.fill(one, 1, n)
        kernels.add(total, total, one, n)
        memory.free(one)
      })
      for (let i = 0; i < 20; i++) program.run()
      program[Symbol.dispose]()
      const next = memory.alloc(n * 4)
      kernels.fill(next, 50, n)
      kernels.add(total, total, next, n)
      check(
        (await floats(backend, total)).every((v) => v === 70),
        `total is ${(await floats(backend, total))[0]}, not 70`,
      )
      memory.free(next)
      memory.free(total)
    },
  ],
  [
    "only kernel calls are recorded, and a failed recording leaves nothing",
    async (backend) => {
      const { memory, kernels } = backend
      const before = memory.stats()
      const h = memory.alloc(16)
      memory.write(h, Float32Array.of(1, 2, 3, 4))
      const refused: readonly (readonly [string, () => unknown])[] = [
        ["write", () => memory.write(h, Float32Array.of(9))],
        ["read", () => memory.read(h)],
        ["synchronize", () => backend.synchronize()],
        ["capture", () => backend.capture(() => {})],
      ]
      for (const [label, call] of refused)
        checkThrows(
          () =>
            backend.capture(() => {
              const inside = memory.alloc(16)
              kernels.fill(h, 0, 4)
              memory.free(inside)
              call()
            }),
          ["SLOTH_BACKEND_CAPTURE"],
          `${label} while recording`,
        )
      const values = await floats(backend, h)
      check(values[0] === 1 && values[3] === 4, "a refused recording must not run")
      memory.free(h)
      const after = memory.stats()
      check(after.liveBytes === before.liveBytes && after.liveBuffers === before.liveBuffers, "something stayed alive")
    },
  ],
]
