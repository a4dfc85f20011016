import { createHash } from "node:crypto"
import { mkdir, readFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { slothPaths, writeFileAtomic, type RewardMessage } from "@sloth/core"

/** Where and how judgements are made and kept. */
export interface JudgementOptions {
  /** Requests at the same time. */
  readonly concurrency: number
  /** A folder in which judgements are kept, by their whole content; `judge` in the cache folder when absent, false for none. */
  readonly cache?: string | false
}

/** A judgement, and whether it was known. */
export interface Judgement {
  readonly score: number | null
  readonly cached: boolean
}

/** SHA-256 of a text, hexadecimal. */
export const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex")

/** Makes judgements, no more at once than allowed and none twice, and keeps numbers on disk by their key. */
export class Judgements {
  readonly #folder: string | undefined
  readonly #running = new Map<string, Promise<number | null>>()
  readonly #waiting: (() => void)[] = []
  #free: number

  constructor({ concurrency, cache }: JudgementOptions) {
    this.#folder = cache === false ? undefined : (cache ?? join(slothPaths().cache, "judge"))
    this.#free = concurrency
  }

  /** Does work when it is its turn. */
  async turn<A>(work: () => Promise<A>): Promise<A> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }

  /** The judgement of `key`: the one that is kept, the one that is being made, or a new one. null is not kept. */
  async of(key: string, make: () => Promise<number | null>): Promise<Judgement> {
    const file = this.#folder === undefined ? undefined : join(this.#folder, key.slice(0, 2), `${key}.json`)
    const kept = file === undefined ? undefined : await readJudgement(file)
    if (kept !== undefined) return { score: kept, cached: true }
    let asked = this.#running.get(key)
    if (asked === undefined) {
      asked = make()
        .then(async (score) => {
          if (file !== undefined && score !== null) {
            await mkdir(dirname(file), { recursive: true })
            await writeFileAtomic(file, JSON.stringify({ score }))
          }
          return score
        })
        .finally(() => this.#running.delete(key))
      this.#running.set(key, asked)
    }
    return { score: await asked, cached: false }
  }
}

/** A prompt as a text. */
export const promptText = (prompt: string | readonly RewardMessage[]): string =>
  typeof prompt === "string" ? prompt : prompt.map(({ role, content }) => `${role}: ${content}`).join("\n")

/** Writes texts between marks that none of them can hold, since the marks follow from them all. */
export const marked = (
  material: readonly unknown[],
): { readonly mark: string; part(title: string, text: string): string } => {
  const mark = sha256(JSON.stringify(material)).slice(0, 12)
  return { mark, part: (title, text) => `${title}\n<<<${mark}\n${text}\n${mark}>>>` }
}

const readJudgement = async (file: string): Promise<number | undefined> => {
  try {
    const { score } = JSON.parse(await readFile(file, "utf8")) as { score?: unknown }
    return typeof score === "number" && Number.isFinite(score) ? score : undefined
  } catch {
    // Not there, or not whole: it is asked again.
    return undefined
  }
}
