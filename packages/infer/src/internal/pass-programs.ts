import type { Program } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import { weightFormat, type Tensor } from "@sloth/tensor"
import { cachedTables, tensorContext, type CachedRows, type CachedTensors } from "../cached-context.ts"
import type { CacheMemory } from "../paged-cache.ts"

/** Rows up to which a pass is recorded: beyond, the calls themselves are the smaller part. */
const MOST_ROWS = 128
/** Programs kept at a time; each holds the activations of one pass. */
const MOST_PROGRAMS = 4

interface Recorded {
  readonly ids: Tensor
  readonly tensors: CachedTensors
  readonly maxBlocks: number
  readonly program: Program
  readonly logits: Tensor
}

const powerOfTwo = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, n)))

/** Logits [rows, vocab] of hidden states [rows, hidden]. */
export const headLogits = (model: CausalLM, hidden: Tensor): Tensor => {
  const { engine, head } = model
  const rows = hidden.shape[0]!
  const [vocab, width] = head.weight.shape as [number, number]
  const logits = engine.empty([rows, vocab])
  engine.backend.kernels.logits(
    logits.handle,
    hidden.handle,
    head.weight.tensor.handle,
    weightFormat(head.weight.tensor.dtype).code,
    rows,
    vocab,
    width,
    head.softcap,
    head.logitScale,
  )
  return logits
}

/**
 * Passes of few rows, as in generation, repeated as recorded programs: a pass is hundreds of small kernel calls, and making them anew for every token costs more than a small
 * model's arithmetic. A shape is recorded when it comes for the second time. The programs hold the weights and adapters of the moment of recording, so they live no
 * longer than one stream of texts.
 */
export class PassPrograms implements Disposable {
  readonly #model: CausalLM
  readonly #cache: CacheMemory
  readonly #adapters: boolean
  readonly #programs = new Map<string, Recorded>()
  readonly #refused = new Set<string>()
  #last = ""
  #version = -1

  constructor(model: CausalLM, cache: CacheMemory, adapters: boolean) {
    this.#model = model
    this.#cache = cache
    this.#adapters = adapters
  }

  /**
   * Logits [rows, vocab] of every row of a pass over texts that have a beginning in the cache, or undefined when the pass is better made call by call. They are overwritten by the
   * next pass of this shape.
   */
  logits(parts: readonly CachedRows[], ids: readonly number[]): Tensor | undefined {
    if (ids.length > MOST_ROWS || parts.some((p) => p.sequence.length === 0)) return undefined
    const cache = this.#cache
    if (this.#version !== cache.version) {
      // The programs write into memory that the cache has left.
      this.#clear()
      this.#version = cache.version
    }
    const longest = Math.max(...parts.map((p) => p.sequence.length + p.rows))
    const maxBlocks = powerOfTwo(Math.max(...parts.map((p) => p.sequence.blocks.length)))
    const maxLength = Math.max(64, powerOfTwo(longest))
    const key = `${parts.map((p) => p.rows).join()};${maxBlocks};${maxLength}`
    let recorded = this.#programs.get(key)
    if (recorded === undefined) {
      const first = this.#last !== key
      this.#last = key
      if (first || this.#refused.has(key)) return undefined
      recorded = this.#record(parts, maxBlocks, maxLength)
      if (recorded === undefined) {
        this.#refused.add(key)
        return undefined
      }
    } else this.#programs.delete(key)
    // In order of last use.
    this.#programs.set(key, recorded)
    if (this.#programs.size > MOST_PROGRAMS) {
      const [oldest, unused] = this.#programs.entries().next().value!
      this.#programs.delete(oldest)
      this.#drop(unused)
    }
    const { slots, positions, sequences, table } = cachedTables(cache, parts, maxBlocks)
    recorded.ids.write(Int32Array.from(ids))
    recorded.tensors.slots.write(slots)
    recorded.tensors.positions.write(positions)
    recorded.tensors.sequences.write(sequences)
    recorded.tensors.table.write(table)
    recorded.program.run()
    return recorded.logits
  }

  #record(parts: readonly CachedRows[], maxBlocks: number, maxLength: number): Recorded | undefined {
    const model = this.#model
    const { engine } = model
    const rows = parts.reduce((n, p) => n + p.rows, 0)
    const ids = engine.unscoped([rows], "i32")
    const tensors = {
      slots: engine.unscoped([rows], "i32"),
      positions: engine.unscoped([rows], "i32"),
      sequences: engine.unscoped([rows], "i32"),
      table: engine.unscoped([parts.length, maxBlocks], "i32"),
    }
    const captured = engine.capture(() => {
      const ctx = tensorContext(engine, this.#cache, { rows, maxBlocks, maxLength }, tensors, this.#adapters)
      return headLogits(model, model.hidden(ctx, ids)) // [rows, vocab]
    })
    if (captured === undefined) {
      for (const t of [ids, ...Object.values(tensors)]) t.dispose()
      return undefined
    }
    return { ids, tensors, maxBlocks, program: captured.program, logits: engine.keep(captured.result) }
  }

  #drop({ ids, tensors, logits, program }: Recorded): void {
    program[Symbol.dispose]()
    for (const t of [ids, logits, ...Object.values(tensors)]) t.dispose()
  }

  #clear(): void {
    for (const recorded of this.#programs.values()) this.#drop(recorded)
    this.#programs.clear()
    this.#refused.clear()
    this.#last = ""
  }

  [Symbol.dispose](): void {
    this.#clear()
  }
}
