import { afterAll, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  fileError,
  formatBytes,
  freeDiskBytes,
  hashFile,
  isSlothError,
  recoverDirectory,
  removeTemporaries,
  replaceDirectoryAtomic,
  requireDisk,
  temporarySibling,
  writeFileAtomic,
} from "./index.ts"

const root = mkdtempSync(join(tmpdir(), "sloth-atomic-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const codeOf = async (run: () => unknown): Promise<string> => {
  try {
    await run()
  } catch (error) {
    if (isSlothError(error)) return error.code
    throw error
  }
  return "nothing was refused"
}

describe("writeFileAtomic", () => {
  test("writes text, bytes and chunks, and replaces", async () => {
    const path = join(root, "a.bin")
    await writeFileAtomic(path, "one")
    await writeFileAtomic(path, new Uint8Array([1, 2, 3]))
    expect([...readFileSync(path)]).toEqual([1, 2, 3])
    await writeFileAtomic(path, [new Uint8Array([4]), new Uint8Array([5, 6])])
    expect([...readFileSync(path)]).toEqual([4, 5, 6])
  })

  test("a writer that fails half way leaves the old file and nothing else", async () => {
    const directory = join(root, "half")
    mkdirSync(directory)
    const path = join(directory, "a.txt")
    await writeFileAtomic(path, "old")
    const broken = function* (): Generator<Uint8Array> {
      yield new Uint8Array(1000)
      throw Object.assign(new Error("no space"), { code: "ENOSPC" })
    }
    expect(await codeOf(() => writeFileAtomic(path, broken()))).toBe("SLOTH_DISK_FULL")
    expect(readdirSync(directory)).toEqual(["a.txt"])
    expect(readFileSync(path, "utf8")).toBe("old")
  })

  test("coded errors", async () => {
    expect(await codeOf(() => writeFileAtomic(join(root, "no", "such", "a"), "x"))).toBe("SLOTH_FILE_NOT_FOUND")
    expect(await codeOf(() => writeFileAtomic(join(root, "a.bin", "b"), "x"))).toBe("SLOTH_FILE_NOT_DIRECTORY")
    mkdirSync(join(root, "folder"))
    expect(await codeOf(() => writeFileAtomic(join(root, "folder"), "x"))).toBe("SLOTH_FILE_IS_DIRECTORY")
    expect(fileError(Object.assign(new Error(), { code: "EROFS" }), "p", "write").code).toBe("SLOTH_FILE_READ_ONLY")
    expect(fileError(new Error("odd"), "p", "write").code).toBe("SLOTH_FILE_IO")
  })
})

describe("replaceDirectoryAtomic", () => {
  const makeTemporary = (final: string, text: string): string => {
    const temporary = temporarySibling(final)
    mkdirSync(join(temporary, "inner"), { recursive: true })
    writeFileSync(join(temporary, "inner", "a.txt"), text)
    return temporary
  }
  const read = (final: string): string => readFileSync(join(final, "inner", "a.txt"), "utf8")

  test("puts a folder in place and replaces it", async () => {
    const final = join(root, "adapter")
    await replaceDirectoryAtomic(makeTemporary(final, "one"), final)
    expect(read(final)).toBe("one")
    await replaceDirectoryAtomic(makeTemporary(final, "two"), final)
    expect(read(final)).toBe("two")
    expect(readdirSync(root).filter((name) => name.startsWith(".adapter"))).toEqual([])
  })

  test("a crash between the renames is undone", async () => {
    const final = join(root, "crash")
    await replaceDirectoryAtomic(makeTemporary(final, "old"), final)
    renameSync(final, join(root, ".crash.replaced"))
    expect(await recoverDirectory(final)).toBe(true)
    expect(read(final)).toBe("old")
    expect(await recoverDirectory(final)).toBe(false)
  })

  test("a crash before the clean-up keeps the new folder", async () => {
    const final = join(root, "late")
    await replaceDirectoryAtomic(makeTemporary(final, "new"), final)
    mkdirSync(join(root, ".late.replaced"))
    expect(await recoverDirectory(final)).toBe(false)
    expect(read(final)).toBe("new")
    expect(existsSync(join(root, ".late.replaced"))).toBe(false)
  })

  test("a failed rename puts the old folder back", async () => {
    const final = join(root, "back")
    await replaceDirectoryAtomic(makeTemporary(final, "old"), final)
    expect(await codeOf(() => replaceDirectoryAtomic(join(root, "missing.tmp"), final))).toBe("SLOTH_FILE_NOT_FOUND")
    expect(read(final)).toBe("old")
  })

  test("temporaries of killed processes are removed, other files stay", async () => {
    const directory = join(root, "temporaries")
    mkdirSync(directory)
    makeTemporary(join(directory, "x"), "y")
    writeFileSync(join(directory, ".keep.tmp"), "")
    expect((await removeTemporaries(directory)).length).toBe(1)
    expect(readdirSync(directory)).toEqual([".keep.tmp"])
    expect(await removeTemporaries(join(root, "nowhere"))).toEqual([])
  })
})

describe("disk", () => {
  test("free space is measured, also for a path that does not exist yet", async () => {
    const free = await freeDiskBytes(join(root, "not", "yet"))
    expect(free).toBeGreaterThan(0)
    await requireDisk(root, 1, "a byte")
    expect(await codeOf(() => requireDisk(root, 1e18, "the checkpoints"))).toBe("SLOTH_DISK_SPACE")
  })

  test("hash and sizes", async () => {
    const path = join(root, "hash.txt")
    writeFileSync(path, "abc")
    expect(await hashFile(path)).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    expect(await codeOf(() => hashFile(root))).toBe("SLOTH_FILE_IS_DIRECTORY")
    expect([0, 999, 1500, 8_000_000, 24e9].map(formatBytes)).toEqual([
      "0 bytes",
      "999 bytes",
      "1.50 KB",
      "8.00 MB",
      "24.0 GB",
    ])
  })
})
