import {
  attention,
  checkpoint,
  handleOf,
  SequenceLayout,
  withRows,
  type Engine,
  type ForwardContext,
  type RowMemo,
  type Tensor,
} from "@sloth/tensor"
import type { CachedSequence, CacheMemory } from "./paged-cache.ts"

/** New tokens of one text in a pass. */
export interface CachedRows {
  readonly sequence: CachedSequence
  /** How many rows of the pass are its next tokens; room for them is reserved. */
  readonly rows: number
}

/** What the kernels of a pass read about its rows. */
export interface CachedTables {
  readonly rows: number
  readonly maxBlocks: number
  /** Largest position plus one. */
  readonly maxLength: number
  /** Where each row's keys and values go. */
  readonly slots: Int32Array
  readonly positions: Int32Array
  /** Which part each row belongs to. */
  readonly sequences: Int32Array
  /** Block numbers, [parts, maxBlocks]. */
  readonly table: Int32Array
}

/** {@link CachedTables} as tensors. */
export interface CachedTensors {
  readonly slots: Tensor
  readonly positions: Tensor
  readonly sequences: Tensor
  readonly table: Tensor
}

/** The tables of a pass; `maxBlocks` may leave room for longer texts. */
export const cachedTables = (
  cache: CacheMemory,
  parts: readonly CachedRows[],
  maxBlocks = Math.max(...parts.map((p) => p.sequence.blocks.length)),
): CachedTables => {
  const rows = parts.reduce((n, p) => n + p.rows, 0)
  const slots = new Int32Array(rows)
  const positions = new Int32Array(rows)
  const sequences = new Int32Array(rows)
  const table = new Int32Array(parts.length * maxBlocks)
  let row = 0
  let maxLength = 0
  for (const [i, { sequence, rows: n }] of parts.entries()) {
    table.set(sequence.blocks, i * maxBlocks)
    for (let j = 0; j < n; j++, row++) {
      const position = sequence.length + j
      positions[row] = position
      sequences[row] = i
      slots[row] =
        sequence.blocks[Math.floor(position / cache.blockSize)]! * cache.blockSize + (position % cache.blockSize)
      maxLength = Math.max(maxLength, position + 1)
    }
  }
  return { rows, maxBlocks, maxLength, slots, positions, sequences, table }
}

/**
 * The context of a pass that reads and extends cached texts: prefill, decoding and both mixed. The lengths of the texts are advanced by the caller after the pass. With `keep` it is a
 * pass over texts that begin in it, whose products are kept for training, and its result is each text's last row.
 */
export const cachedContext = (
  engine: Engine,
  cache: CacheMemory,
  parts: readonly CachedRows[],
  adapters = true,
  keep?: RowMemo,
): ForwardContext => {
  const tables = cachedTables(cache, parts)
  const tensors = {
    slots: engine.from(tables.slots),
    positions: engine.from(tables.positions),
    sequences: engine.from(tables.sequences),
    table: engine.from(tables.table),
  }
  // Texts that begin in this pass see only rows of this pass: the tiled kernel serves them, which a long prompt feels.
  // A rounded cache is always read back, so that a text's results do not depend on where its passes were cut.
  const fresh = cache.format.code === 0 && parts.every((p) => p.sequence.length === 0)
  const layout = fresh ? SequenceLayout.fromLengths(parts.map((p) => p.rows)) : undefined
  const segments = layout === undefined ? undefined : engine.from(layout.table, [parts.length, 3])
  if (keep === undefined) return tensorContext(engine, cache, tables, tensors, adapters, { segments })
  // As training computes it, layer by layer, and of the last one only what is drawn from.
  let row = -1
  const last = Int32Array.from(parts, ({ rows }) => (row += rows))
  const read = { rows: engine.from(last), positions: engine.from(last.map((i) => tables.positions[i]!)) }
  return tensorContext(engine, cache, tables, tensors, adapters, { segments, keep: { memo: keep, read } })
}

/** The context of a pass whose tables lie in tensors; with `segments` its rows see only each other, and only with them can its products be kept. */
export const tensorContext = (
  engine: Engine,
  cache: CacheMemory,
  { rows, maxBlocks, maxLength }: Pick<CachedTables, "rows" | "maxBlocks" | "maxLength">,
  tensors: CachedTensors,
  adapters: boolean,
  {
    segments,
    keep,
  }: {
    readonly segments?: Tensor | undefined
    readonly keep?: { readonly memo: RowMemo; readonly read: NonNullable<ForwardContext["read"]> }
  } = {},
): ForwardContext => {
  const { slots, positions, sequences, table } = tensors
  const context: ForwardContext = {
    engine,
    positions,
    maxLength,
    attend: (layer, q, k, v, shape, sinks) => {
      const { keys, values } = cache.layer(layer)
      const width = shape.kvHeads * shape.headDim
      const { kernels } = engine.backend
      kernels.cacheWrite(
        keys.handle,
        values.handle,
        cache.format.code,
        k.handle,
        width,
        v.handle,
        width,
        slots.handle,
        rows,
        width,
      )
      if (segments !== undefined) return attention(q, k, v, segments, shape, sinks)
      const out = engine.empty(q.shape) // [rows, heads · headDim]
      kernels.pagedAttention(
        out.handle,
        q.handle,
        shape.heads * shape.headDim,
        keys.handle,
        values.handle,
        cache.format.code,
        table.handle,
        maxBlocks,
        cache.blockSize,
        sequences.handle,
        positions.handle,
        rows,
        shape.heads,
        shape.kvHeads,
        shape.headDim,
        shape.scale,
        shape.window,
        shape.softcap,
        handleOf(sinks),
      )
      return out
    },
    block: (_layer, x, body, _anchor, tail) =>
      withRows(engine, keep?.memo, () =>
        checkpoint(engine, x, body, tail === undefined ? {} : { tail: (y) => tail(context, y) }),
      ),
    dropout: undefined,
    adapters,
    grouped: keep === undefined,
    ...(keep === undefined ? {} : { read: keep.read }),
  }
  return context
}
