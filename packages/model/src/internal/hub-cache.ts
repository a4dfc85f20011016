import * as fs from "node:fs"
import { copyFile, link, mkdir, rm, symlink } from "node:fs/promises"
import { dirname, join, relative } from "node:path"
import { fileError, writeFileAtomic } from "@sloth/core"
import type { HubRef } from "../hub-ref.ts"
import { hubError } from "./hub-http.ts"

/** A file of a repository at a commit. */
export interface HubFile {
  readonly path: string
  /** Bytes. */
  readonly size: number
  /** Hash of the content: sha256 for large files, git's blob sha1 for small ones. */
  readonly hash: { readonly kind: "sha256" | "git"; readonly value: string }
}

/** Where the parts of one repository lie in the cache; the layout is that of the hub's own Python client. */
export class HubCache {
  readonly root: string
  private readonly ref: HubRef

  constructor(cacheDir: string, ref: HubRef) {
    this.ref = ref
    this.root = join(cacheDir, `${ref.type}s--${ref.name.replace("/", "--")}`)
  }

  snapshot(commit: string): string {
    return join(this.root, "snapshots", commit)
  }

  blob(file: HubFile): string {
    return join(this.root, "blobs", file.hash.value)
  }

  private refPath(): string {
    return join(this.root, "refs", ...this.ref.revision.split("/"))
  }

  /** The commit that the revision meant when it was last asked for. */
  readCommit(): string | undefined {
    if (/^[0-9a-f]{40}$/.test(this.ref.revision)) return this.ref.revision
    try {
      return fs.readFileSync(this.refPath(), "utf8").trim()
    } catch {
      return undefined
    }
  }

  async writeCommit(commit: string): Promise<void> {
    if (commit === this.ref.revision) return
    await this.makeFolder(dirname(this.refPath()))
    await writeFileAtomic(this.refPath(), commit)
  }

  /** The list of files of a commit, which never changes. */
  readTree(commit: string): HubFile[] | undefined {
    try {
      return JSON.parse(fs.readFileSync(join(this.root, "trees", `${commit}.json`), "utf8")) as HubFile[]
    } catch {
      return undefined
    }
  }

  async writeTree(commit: string, files: readonly HubFile[]): Promise<void> {
    await this.makeFolder(join(this.root, "trees"))
    await writeFileAtomic(join(this.root, "trees", `${commit}.json`), JSON.stringify(files))
  }

  /** True where the file is in the snapshot with its full length. */
  has(commit: string, file: HubFile): boolean {
    try {
      return fs.statSync(join(this.snapshot(commit), file.path)).size === file.size
    } catch {
      return false
    }
  }

  /** True where the whole content is in the cache, perhaps for another commit. */
  hasBlob(file: HubFile): boolean {
    return fs.existsSync(this.blob(file))
  }

  /** Bytes of an interrupted download, or of a whole one that another snapshot uses. */
  downloaded(file: HubFile): number {
    for (const path of [this.blob(file), `${this.blob(file)}.incomplete`]) {
      try {
        return Math.min(file.size, fs.statSync(path).size)
      } catch {
        // not there; the next place is looked at
      }
    }
    return 0
  }

  async makeFolder(path: string): Promise<void> {
    try {
      await mkdir(path, { recursive: true })
    } catch (error) {
      throw fileError(error, path, "make the folder")
    }
  }

  /** Shows a blob in the snapshot under its own name. */
  async place(commit: string, file: HubFile): Promise<void> {
    const target = join(this.snapshot(commit), file.path)
    const blob = this.blob(file)
    await this.makeFolder(dirname(target))
    await rm(target, { force: true })
    try {
      await symlink(relative(dirname(target), blob), target)
    } catch {
      // Windows without the right to make links, or a disk that has none.
      await link(blob, target).catch(() => copyFile(blob, target))
    }
  }

  /** Runs `work` while no other process downloads the same blob. */
  async locked<T>(file: HubFile, work: () => Promise<T>): Promise<T> {
    const path = `${this.blob(file)}.lock`
    await this.makeFolder(dirname(path))
    for (let attempt = 0; ; attempt++) {
      try {
        fs.writeFileSync(path, String(process.pid), { flag: "wx" })
        break
      } catch (error) {
        if ((error as { code?: unknown }).code !== "EEXIST") throw fileError(error, path, "write")
        if (attempt > 0 || holderLives(path)) {
          throw hubError(
            "SLOTH_HUB_BUSY",
            this.ref,
            `Another process is downloading ${file.path} of ${this.ref.name}.`,
            `Wait until it is done. If there is none, delete ${path}.`,
            { path },
          )
        }
        // The process that made the lock is gone.
        await rm(path, { force: true })
      }
    }
    try {
      return await work()
    } finally {
      await rm(path, { force: true })
    }
  }
}

const holderLives = (lock: string): boolean => {
  const pid = Number(fs.readFileSync(lock, "utf8"))
  if (!Number.isInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as { code?: unknown }).code === "EPERM"
  }
}
