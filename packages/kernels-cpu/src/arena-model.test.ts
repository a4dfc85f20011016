import { expect, test } from "bun:test"
import { arenaModel, createCpuBackend } from "./index.ts"

/** Bytes that the arena counts for a request; see memory.cpp. */
const rounded = (bytes: number): number => {
  if (bytes > 65_536) return Math.ceil(bytes / 4096) * 4096
  if (bytes <= 1024) return Math.ceil(bytes / 64) * 64
  const base = 2 ** Math.floor(Math.log2(bytes - 1))
  return base + Math.ceil((bytes - base) / (base / 8)) * (base / 8)
}

test("the model lays buffers out as the native arena does", async () => {
  using backend = await createCpuBackend({ threads: 1 })
  const { memory } = backend
  const model = arenaModel()
  const live: { handle: number; address: number; bytes: number }[] = []
  let used = 0
  let state = 7
  const random = (n: number): number => (state = (state * 48271) % 2147483647) % n
  const compare = (): void => {
    // What was ever handed out is what is in use and what is kept for reuse.
    expect(memory.stats().cachedBytes + used).toBe(model.touchedBytes())
  }
  const step = (): void => {
    if (live.length > 0 && random(100) < 48) {
      const { handle, address, bytes } = live.splice(random(live.length), 1)[0]!
      memory.free(handle)
      model.free(address, bytes)
      used -= rounded(bytes)
      return
    }
    // From single numbers over the border of the small ones to buffers of a segment's size.
    const bytes = [1 + random(3000), 60_000 + random(12_000), 1 + random(9_000_000), 100e6 + random(90e6)][
      Math.min(3, Math.floor(random(64) / 20))
    ]!
    live.push({ handle: memory.alloc(bytes), address: model.alloc(bytes), bytes })
    used += rounded(bytes)
  }
  for (let i = 0; i < 3000; i++) {
    step()
    if (i % 50 === 0) compare()
  }
  compare()
  // A saved state comes back, however often.
  const back = model.save()
  const before = model.touchedBytes()
  for (const _ of [1, 2]) {
    const a = model.alloc(3e9)
    model.alloc(100)
    model.free(a, 3e9)
    expect(model.touchedBytes()).toBeGreaterThan(before + 2e9)
    back()
    expect(model.touchedBytes()).toBe(before)
  }
  for (let i = 0; i < 500; i++) step()
  compare()
  for (const { handle } of live) memory.free(handle)
})
