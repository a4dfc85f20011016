import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { dirname, join } from "node:path"

import { loadAddon } from "./internal/loader.ts"
import { placement } from "./placement.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-placement-"))
afterAll(() => rmSync(folder, { recursive: true }))

let count = 0
/** A machine whose files say this. */
const machine = (allowed: string, entries: Readonly<Record<string, string>>) => {
  const devices = join(folder, `machine${count++}`)
  mkdirSync(devices)
  for (const [name, text] of Object.entries(entries)) {
    mkdirSync(dirname(join(devices, name)), { recursive: true })
    writeFileSync(join(devices, name), `${text}\n`)
  }
  const status = join(devices, "status")
  writeFileSync(status, `Name:\tbun\nCpus_allowed:\tff\nCpus_allowed_list:\t${allowed}\nMems_allowed_list:\t0\n`)
  return { devices, status }
}
const siblings = (pairs: readonly string[]): Record<string, string> =>
  Object.fromEntries(
    pairs.flatMap((pair) =>
      pair.split(",").map((cpu) => [`system/cpu/cpu${cpu}/topology/thread_siblings_list`, pair] as const),
    ),
  )

describe("placement", () => {
  // Two fast cores with two threads each and four slow ones, as Intel names them.
  const hybrid = {
    "system/cpu/online": "0-7",
    "cpu_core/cpus": "0-3",
    "cpu_atom/cpus": "4-7",
    ...siblings(["0,1", "2,3", "4", "5", "6", "7"]),
  }

  test("takes the fast cores of a hybrid processor first, one thread of each before the second", () => {
    expect(placement(1, machine("0-7", hybrid))).toEqual([0])
    expect(placement(2, machine("0-7", hybrid))).toEqual([0, 2])
    expect(placement(4, machine("0-7", hybrid))).toEqual([0, 2, 1, 3])
    expect(placement(5, machine("0-7", hybrid))).toEqual([0, 2, 1, 3, 4])
  })

  test("stays within what the process may use", () => {
    expect(placement(2, machine("1,3-7", hybrid))).toEqual([1, 3])
    expect(placement(3, machine("1,4-7", hybrid))).toEqual([1, 4, 5])
    expect(placement(5, machine("1,4-7", hybrid))).toBeUndefined()
  })

  test("reads capacities where the system gives them", () => {
    const capacities = [446, 446, 1024, 1024].map((c, i) => [`system/cpu/cpu${i}/cpu_capacity`, String(c)] as const)
    expect(placement(3, machine("0-3", { "system/cpu/online": "0-3", ...Object.fromEntries(capacities) }))).toEqual([
      2, 3, 0,
    ])
  })

  test("stays on one memory node, the one with more cores", () => {
    const nodes = {
      "system/cpu/online": "0-6",
      "system/node/node0/cpulist": "0-2",
      "system/node/node1/cpulist": "3-6",
      "system/node/possible": "0-1",
    }
    expect(placement(4, machine("0-6", nodes))).toEqual([3, 4, 5, 6])
    expect(placement(5, machine("0-6", nodes))).toEqual([3, 4, 5, 6, 0])
    expect(placement(2, machine("0-3", nodes))).toEqual([0, 1])
  })

  test("leaves machines alone whose processors are alike, are all wanted or are not described", () => {
    const alike = { "system/cpu/online": "0-7", ...siblings(["0,4", "1,5", "2,6", "3,7"]) }
    expect(placement(4, machine("0-7", alike))).toBeUndefined()
    expect(placement(8, machine("0-7", hybrid))).toBeUndefined()
    expect(placement(2, machine("0-7", {}))).toBeUndefined()
    expect(placement(2, machine("0-7", { "system/cpu/online": "what" }))).toBeUndefined()
    expect(placement(2, { devices: join(folder, "none"), status: join(folder, "none") })).toBeUndefined()
  })

  test.skipIf(process.platform !== "linux" || availableParallelism() < 2)(
    "its processors are those that the threads run on",
    () => {
      const { addon } = loadAddon()
      const allowed = /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))![1]!
      const bound = (): number =>
        readdirSync("/proc/self/task").filter((task) =>
          new RegExp(`^Cpus_allowed_list:\\s*${allowed}$`, "m").test(
            readFileSync(`/proc/self/task/${task}/status`, "utf8"),
          ),
        ).length
      const before = bound()
      const backend = addon.create(addon.isas()[0]!, "f32", 3, 1 << 26, false, (code) => new Error(code), allowed)!
      try {
        // The queue's thread and two workers; each says so when it begins to run.
        for (let i = 0; i < 200 && bound() < before + 3; i++)
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
        expect(bound()).toBe(before + 3)
      } finally {
        backend.close()
      }
      // A wish for processors that do not exist is no error.
      const other = addon.create(addon.isas()[0]!, "f32", 2, 1 << 26, false, (code) => new Error(code), "1000000,x")!
      other.close()
    },
  )
})
