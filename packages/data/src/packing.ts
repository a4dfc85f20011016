import { SlothError } from "@sloth/core"

/**
 * Packs sequences into bins of `capacity` tokens: best-fit decreasing, the longest first, each into the bin with the least room that still
 * holds it (the oldest of equal ones). Returns the indices of each bin in the order they were put in; empty sequences are left out.
 * The same input gives the same bins. O(n log n + n log capacity). Errors: `SLOTH_DATA_OVERLONG`, `SLOTH_DATA_CAPACITY`.
 * Source: best-fit decreasing as TRL packs (`data_utils.pack_dataset`, strategy "bfd"), a tree over the room that is left.
 */
export const packBestFit = (lengths: ArrayLike<number>, capacity: number): number[][] => {
  if (!Number.isInteger(capacity) || capacity < 1) {
    throw new SlothError("SLOTH_DATA_CAPACITY", {
      what: `A bin of ${capacity} tokens holds nothing.`,
      next: "Give a whole number of tokens, at least 1.",
      fields: { capacity },
    })
  }
  const order: number[] = []
  for (let i = 0; i < lengths.length; i++) {
    const length = lengths[i] as number
    if (length > capacity) {
      throw new SlothError("SLOTH_DATA_OVERLONG", {
        what: `Sequence ${i} has ${length} tokens, more than the ${capacity} of a bin.`,
        next: "Truncate or split long rows (maxLength), or make the bins larger.",
        fields: { index: i, length, capacity },
      })
    }
    if (length > 0) order.push(i)
  }
  order.sort((a, b) => (lengths[b] as number) - (lengths[a] as number) || a - b)

  const bins: number[][] = []
  const room = new RoomTree(capacity)
  for (const index of order) {
    const length = lengths[index] as number
    const found = room.atLeast(length)
    let bin: number
    let left: number
    if (found === undefined) {
      bin = bins.push([]) - 1
      left = capacity
    } else {
      bin = room.take(found)
      left = found
    }
    ;(bins[bin] as number[]).push(index)
    if (left > length) room.put(left - length, bin)
  }
  return bins
}

/** Bins by the room they have left, with the smallest room of at least some size found in O(log capacity). */
class RoomTree {
  readonly #leaves: number
  /** Number of bins below each node of a complete binary tree; leaf r is at `leaves + r`. */
  readonly #counts: Int32Array
  readonly #queues = new Map<number, { bins: number[]; head: number }>()

  constructor(capacity: number) {
    let leaves = 1
    while (leaves <= capacity) leaves *= 2
    this.#leaves = leaves
    this.#counts = new Int32Array(2 * leaves)
  }

  put(room: number, bin: number): void {
    const queue = this.#queues.get(room)
    if (queue === undefined) this.#queues.set(room, { bins: [bin], head: 0 })
    else queue.bins.push(bin)
    this.#count(room, 1)
  }

  /** Removes the bin that has had this room the longest. */
  take(room: number): number {
    const queue = this.#queues.get(room) as { bins: number[]; head: number }
    const bin = queue.bins[queue.head] as number
    queue.head += 1
    if (queue.head === queue.bins.length) this.#queues.delete(room)
    this.#count(room, -1)
    return bin
  }

  #count(room: number, by: number): void {
    for (let node = this.#leaves + room; node >= 1; node >>= 1) this.#counts[node] = (this.#counts[node] as number) + by
  }

  /** The smallest room, at least `room`, that some bin has. */
  atLeast(room: number): number | undefined {
    let node = this.#leaves + room
    if (this.#counts[node] === 0) {
      // Up until a right-hand neighbour has bins, then down to the leftmost leaf below it.
      while (node > 1 && (node % 2 === 1 || this.#counts[node + 1] === 0)) node >>= 1
      if (node <= 1) return undefined
      node += 1
      while (node < this.#leaves) node = this.#counts[2 * node] === 0 ? 2 * node + 1 : 2 * node
    }
    return node - this.#leaves
  }
}
