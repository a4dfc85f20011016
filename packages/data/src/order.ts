import { SlothError } from "@sloth/core"
import { PhiloxStream } from "./internal/philox.ts"

// Streams keep draws for different purposes apart though they share the seed.
const HELD_OUT_STREAM = 0x68656c64
const EPOCH_STREAM = 0x65706f63

const checkSeed = (seed: number): void => {
  if (Number.isSafeInteger(seed) && seed >= 0) return
  throw new SlothError("SLOTH_DATA_SEED", {
    what: `The seed ${seed} is not a whole number from 0 to 2^53 - 1.`,
    next: "Give another seed.",
    fields: { seed },
  })
}

const permutation = (n: number, seed: number, stream: number, step: number): Int32Array => {
  checkSeed(seed)
  const order = Int32Array.from({ length: n }, (_, i) => i)
  const random = new PhiloxStream(seed, stream, step)
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1)
    const swap = order[i] as number
    order[i] = order[j] as number
    order[j] = swap
  }
  return order
}

/**
 * The order in which epoch `epoch` (from 0) visits `n` examples, int32 `[n]`: a new permutation each epoch, or 0 to n - 1.
 * It depends on its arguments alone: the same on every machine, and epoch k needs no epoch before it. Errors: `SLOTH_DATA_SEED`.
 * Source: Fisher-Yates on Philox4x32-10 (Salmon et al., SC 2011).
 */
export const epochOrder = (
  n: number,
  seed: number,
  epoch: number,
  order: "shuffle" | "sequential" = "shuffle",
): Int32Array =>
  order === "sequential" ? Int32Array.from({ length: n }, (_, i) => i) : permutation(n, seed, EPOCH_STREAM, epoch)

/** Indices of the two parts of a data set, each in rising order. */
export interface HeldOutSplit {
  readonly train: Int32Array
  readonly heldOut: Int32Array
}

/**
 * Chooses which of `n` items are held out: a share of them (`size` below 1, at least one item) or a number of them.
 * The choice depends on `n`, `size` and `seed` alone. Errors: `SLOTH_DATA_HELD_OUT` if nothing would be left to train on, `SLOTH_DATA_SEED`.
 */
export const splitHeldOut = (n: number, size: number, seed: number): HeldOutSplit => {
  const count = size > 0 && size < 1 ? Math.max(1, Math.round(n * size)) : size
  if (!Number.isInteger(count) || count < 0 || (count >= n && count > 0)) {
    throw new SlothError("SLOTH_DATA_HELD_OUT", {
      what: `${size} cannot be held out of ${n} rows.`,
      next: "Give a share between 0 and 1, or a whole number of rows that leaves some to train on.",
      fields: { size, rows: n },
    })
  }
  const order = permutation(n, seed, HELD_OUT_STREAM, 0)
  return { heldOut: order.slice(0, count).sort(), train: order.slice(count).sort() }
}
