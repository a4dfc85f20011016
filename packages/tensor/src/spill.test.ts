import { expect, test } from "bun:test"
import { SlothError, type ScratchFile } from "@sloth/core"
import { checkpoint } from "./checkpoint.ts"
import { Engine } from "./engine.ts"
import { attention, type AttentionShape } from "./ops/attention.ts"
import { linear } from "./ops/linear.ts"
import { createReferenceBackend } from "./reference/index.ts"
import type { Tensor } from "./tensor.ts"

const shape: AttentionShape = { heads: 1, kvHeads: 1, headDim: 4, scale: 0.5, window: 0, softcap: 0 }

/** An engine whose disk has room for `blocks` pages. */
const engineWith = (blocks: number): { readonly engine: Engine; readonly moved: string[] } => {
  const backend = createReferenceBackend()
  const moved: string[] = []
  const scratch = (folder: string): ScratchFile => {
    const file = backend.memory.scratch(folder)
    return {
      ...file,
      reserve: (bytes) => {
        if (bytes > blocks * 4096)
          throw new SlothError("SLOTH_SCRATCH_DISK", { what: "The disk is full.", fields: { bytes } })
        file.reserve(bytes)
      },
      put: (handle, offset) => {
        moved.push(`put ${offset}`)
        file.put(handle, offset)
      },
      take: (handle, offset) => {
        moved.push(`take ${offset}`)
        file.take(handle, offset)
      },
    }
  }
  return { engine: new Engine({ ...backend, memory: { ...backend.memory, scratch } }), moved }
}

/** Three blocks of attention on themselves; returns the gradient of the weight. */
const pass = async (engine: Engine, weight: Tensor): Promise<Float32Array> => {
  engine.policy = "spill"
  engine.scope(() => {
    const segments = engine.from(Int32Array.of(0, 5, -1), [1, 3])
    let x = engine.from(
      Float32Array.from({ length: 20 }, (_, i) => Math.sin(i)),
      [5, 4],
    )
    const { tape } = engine.record(() => {
      for (let i = 0; i < 3; i++) {
        const input = x
        x = checkpoint(
          engine,
          input,
          (y) => {
            const h = linear(y, weight)
            return attention(h, h, h, segments, shape)
          },
          { anchor: weight },
        )
        input.dispose()
      }
    })
    const d = engine.empty(x.shape)
    engine.backend.kernels.fill(d.handle, 1, d.size)
    tape.backward([{ tensor: x, gradient: d }])
  })
  const gradient = (await weight.grad!.readFloats()).slice()
  weight.slot!.clear()
  return gradient
}

const weightOf = (engine: Engine): Tensor =>
  engine.parameter(
    engine.scope(() =>
      engine.keep(
        engine.from(
          Float32Array.from({ length: 16 }, (_, i) => Math.cos(i)),
          [4, 4],
        ),
      ),
    ),
  )

test("values come back in reverse, and the place of every pass is used again", async () => {
  const { engine, moved } = engineWith(100)
  const weight = weightOf(engine)
  const first = await pass(engine, weight)
  // An input, the result of attention and its sums a block, a page each.
  const pages = Array.from({ length: 9 }, (_, i) => i * 4096)
  expect(moved.slice(0, 9)).toEqual(pages.map((at) => `put ${at}`))
  expect(new Set(moved.slice(9))).toEqual(new Set(pages.map((at) => `take ${at}`)))
  expect(moved.slice(9, 12).every((line) => Number(line.split(" ")[1]) >= 6 * 4096)).toBe(true)
  moved.length = 0
  expect(await pass(engine, weight)).toEqual(first)
  expect(moved[0]).toBe("put 0")
  weight.dispose()
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

test("a disk that fills up in the middle of a block fails the pass and leaks nothing", async () => {
  // Room for the first block and a part of the second.
  for (const blocks of [0, 1, 4, 5]) {
    const { engine, moved } = engineWith(blocks)
    const weight = weightOf(engine)
    for (let again = 0; again < 2; again++) {
      moved.length = 0
      const error = await pass(engine, weight).catch((e: unknown) => e)
      expect((error as SlothError).code).toBe("SLOTH_SCRATCH_DISK")
      // The second time everything is free again.
      expect(moved).toEqual(Array.from({ length: blocks }, (_, i) => `put ${i * 4096}`))
      expect(engine.backend.memory.stats().liveBuffers).toBe(1)
    }
    weight.dispose()
    engine[Symbol.dispose]()
  }
})
