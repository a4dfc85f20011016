import { SlothError } from "@sloth/core"

/** A move: up, left, down, right. */
export type Move2048 = "W" | "A" | "S" | "D"

/** How a game of 2048 is set up. */
export interface Game2048Options {
  /** Rows and columns; 4 when absent. */
  readonly size?: number
  /** The tile that wins; 2048 when absent. */
  readonly target?: number
  /** How often a new tile is a four; 0.1 when absent. */
  readonly probabilityFours?: number
  /** All tiles follow from it. */
  readonly seed: number
}

/** A game of 2048: equal seeds and moves give equal boards. */
export class Game2048 {
  readonly size: number
  readonly target: number
  readonly #probabilityFours: number
  readonly #cells: Int32Array
  #random: number
  #score = 0
  #moves = 0

  /** Errors: SLOTH_ENVIRONMENT_OPTION. */
  constructor({ size = 4, target = 2048, probabilityFours = 0.1, seed }: Game2048Options) {
    const whole = Number.isInteger(size) && size >= 2 && size <= 16
    if (
      !whole ||
      !Number.isInteger(Math.log2(target)) ||
      target < 8 ||
      !(probabilityFours >= 0 && probabilityFours <= 1)
    )
      throw new SlothError("SLOTH_ENVIRONMENT_OPTION", {
        what: `There is no game of 2048 with size ${size}, target ${target} and probabilityFours ${probabilityFours}.`,
        next: "Take a size from 2 to 16, a power of two from 8 as the target, a probability from 0 to 1.",
        fields: { size, target, probabilityFours },
      })
    this.size = size
    this.target = target
    this.#probabilityFours = probabilityFours
    this.#cells = new Int32Array(size * size)
    this.#random = seed >>> 0
    this.#spawn()
    this.#spawn()
  }

  /** Rows of tiles; 0 is an empty place. */
  get board(): number[][] {
    return Array.from({ length: this.size }, (_, r) => [...this.#cells.subarray(r * this.size, (r + 1) * this.size)])
  }
  /** Sum of all tiles that merging has made. */
  get score(): number {
    return this.#score
  }
  /** Moves that changed the board. */
  get moves(): number {
    return this.#moves
  }
  get largest(): number {
    return Math.max(...this.#cells)
  }
  /** Won when the target is there; lost when nothing can move. */
  get state(): "playing" | "won" | "lost" {
    if (this.largest >= this.target) return "won"
    const n = this.size
    const free = this.#cells.some(
      (tile, i) =>
        tile === 0 || (i % n < n - 1 && this.#cells[i + 1] === tile) || (i + n < n * n && this.#cells[i + n] === tile),
    )
    return free ? "playing" : "lost"
  }

  /** Makes a move and puts a new tile; false, and nothing, where no tile can move. */
  move(move: Move2048): boolean {
    if (this.state !== "playing") return false
    const n = this.size
    let changed = false
    for (let line = 0; line < n; line++) {
      // Places of the line from the side to which the tiles go.
      const place = (i: number): number =>
        move === "A"
          ? line * n + i
          : move === "D"
            ? line * n + n - 1 - i
            : move === "W"
              ? i * n + line
              : (n - 1 - i) * n + line
      const tiles: number[] = []
      for (let i = 0; i < n; i++) if (this.#cells[place(i)] !== 0) tiles.push(this.#cells[place(i)]!)
      const merged: number[] = []
      for (let i = 0; i < tiles.length; i++) {
        // A tile that has just been made does not merge again.
        if (tiles[i] === tiles[i + 1]) {
          merged.push(tiles[i]! * 2)
          this.#score += tiles[i]! * 2
          i++
        } else merged.push(tiles[i]!)
      }
      for (let i = 0; i < n; i++) {
        const tile = merged[i] ?? 0
        if (this.#cells[place(i)] !== tile) changed = true
        this.#cells[place(i)] = tile
      }
    }
    if (changed) {
      this.#moves++
      this.#spawn()
    }
    return changed
  }

  #spawn(): void {
    const empty: number[] = []
    for (const [i, tile] of this.#cells.entries()) if (tile === 0) empty.push(i)
    if (empty.length === 0) return
    const place = empty[Math.floor(this.#next() * empty.length)]!
    this.#cells[place] = this.#next() < this.#probabilityFours ? 4 : 2
  }

  /** A number from 0 to 1: Mulberry32 (Tommy Ettinger, 2017). */
  #next(): number {
    this.#random = (this.#random + 0x6d2b79f5) >>> 0
    let x = this.#random
    x = Math.imul(x ^ (x >>> 15), x | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}
