import { attention, handleOf, SequenceLayout, type Engine, type ForwardContext } from "@sloth/tensor"
import type { CachedSequence, PagedCache } from "./paged-cache.ts"

/** New tokens of one text in a pass. */
export interface CachedRows {
  readonly sequence: CachedSequence
  /** How many rows of the pass are its next tokens; room for them is reserved. */
  readonly rows: number
}

/** The context of a pass that reads and extends cached texts: prefill, decoding and both mixed. The lengths of the texts are advanced by the caller after the pass. */
export const cachedContext = (
  engine: Engine,
  cache: PagedCache,
  parts: readonly CachedRows[],
  adapters = true,
): ForwardContext => {
  const rows = parts.reduce((n, p) => n + p.rows, 0)
  const maxBlocks = Math.max(...parts.map((p) => p.sequence.blocks.length))
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
  const [slotsT, positionsT, sequencesT, tableT] = [
    engine.from(slots),
    engine.from(positions),
    engine.from(sequences),
    engine.from(table),
  ]
  // Texts that begin in this pass see only rows of this pass: the tiled kernel serves them, which a long prompt feels.
  // A rounded cache is always read back, so that a text's results do not depend on where its passes were cut.
  const fresh = cache.format.code === 0 && parts.every((p) => p.sequence.length === 0)
  const layout = fresh ? SequenceLayout.fromLengths(parts.map((p) => p.rows)) : undefined
  const segments = layout === undefined ? undefined : engine.from(layout.table, [parts.length, 3])
  return {
    engine,
    positions: positionsT,
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
        slotsT.handle,
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
        tableT.handle,
        maxBlocks,
        cache.blockSize,
        sequencesT.handle,
        positionsT.handle,
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
    block: (_layer, x, body) => engine.scope(() => body(x)),
    dropout: undefined,
    adapters,
  }
}
