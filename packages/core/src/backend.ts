/**
 * The backend contract: memory plus a table of kernels. Enqueueing is synchronous, reading is asynchronous.
 *
 * Every backend is one in-order queue: a kernel call checks its arguments, enqueues and returns; a buffer freed after the call may be handed out
 * again at once, because later work runs later. Kernels take integer buffer handles and plain numbers only. The handle 0 (`NONE`) means "absent".
 *
 * Conventions of all kernels: tensors are contiguous and row-major unless a leading dimension (`ld*`, in elements) is given; activations, gradients and
 * trainable weights are f32; indices are i32; a weight `format` is the numeric code of a `WeightFormat` (ggml type ids: f32 0, f16 1, q4_0 2, q4_1 3,
 * q8_0 8, bf16 30); `accumulate` 0 overwrites the output and 1 adds to it. Results never depend on the number of threads.
 */

/** Index and generation of a buffer in one number; never 0. Using it after `free` is a coded error. */
export type BufferHandle = number

/** The handle that means "no buffer". */
export const NONE: BufferHandle = 0

/** What a device is and what it can do. */
export interface DeviceInfo {
  /** "cpu", "cuda", "rocm", "webgpu", "reference", "meter". */
  readonly kind: string
  /** Human-readable processor name. */
  readonly description: string
  /** Instruction set or compute capability in use, such as "avx512", "avx2", "x86-64", "neon". */
  readonly isa: string
  /** Instruction sets that this machine could be told to use. */
  readonly isas: readonly string[]
  readonly threads: number
  /** Bytes of memory of the device in all. */
  readonly memoryBytes: number
  /** Precisions offered for products: f32 always; bf16 and int8 where the hardware has them. */
  readonly precisions: readonly Precision[]
  /** The precision of this backend's products; f32 when absent. */
  readonly precision?: Precision
}

/** Memory figures of a backend, in bytes. */
export interface MemoryStats {
  /** Handles that are alive: buffers, views and mappings. */
  readonly liveBuffers: number
  /** Bytes of live buffers (views and file mappings not counted). */
  readonly liveBytes: number
  /** Largest `liveBytes` since the last `resetPeak`. */
  readonly peakBytes: number
  /** Bytes held for reuse. */
  readonly cachedBytes: number
  /** Bytes of files mapped. */
  readonly mappedBytes: number
}

/**
 * A file without a name that buffers are put into and taken from, in queue order: a place for what memory has no room for. It is gone when it is disposed or the process
 * ends, however it ends. What fails while the queue runs (a full disk, a file system that cannot reserve) rejects the next `read` or `synchronize` with
 * SLOTH_SCRATCH_DISK.
 */
export interface ScratchFile extends Disposable {
  /** Sets disk space aside for the first `bytes` bytes of the file, where the file system can. Errors: SLOTH_SCRATCH_DISK. */
  reserve(bytes: number): void
  /** Writes a whole buffer to the file, at a byte offset that is a multiple of 8. */
  put(handle: BufferHandle, offset: number): void
  /** Fills a whole buffer from the file; `ahead` says how many bytes before `offset` will be taken next. */
  take(handle: BufferHandle, offset: number, ahead?: number): void
}

/** Buffers of one backend. */
export interface Memory {
  /** A new buffer, 64-byte aligned, contents undefined. Errors: SLOTH_MEMORY_BUDGET, SLOTH_MEMORY_EXHAUSTED. */
  alloc(bytes: number): BufferHandle
  /** A window on another buffer; it keeps the storage alive and must be freed like a buffer. */
  view(parent: BufferHandle, byteOffset: number, bytes: number): BufferHandle
  free(handle: BufferHandle): void
  /** Size of a live buffer in bytes. Errors: SLOTH_MEMORY_FREED for a dead handle. */
  bytes(handle: BufferHandle): number
  /** Copies host data into a buffer, in queue order; the data may be changed after the call returns. */
  write(handle: BufferHandle, data: ArrayBufferView, byteOffset?: number): void
  /** Copies out in queue order. */
  read(handle: BufferHandle, byteOffset?: number, bytes?: number): Promise<Uint8Array>
  /** A read-only buffer on a range of a file, without a copy where the system allows it. */
  mapFile(path: string, offset: number, bytes: number): BufferHandle
  /** Opens a scratch file on the disk of a folder. Errors: SLOTH_SCRATCH_DISK. */
  scratch(folder: string): ScratchFile
  stats(): MemoryStats
  resetPeak(): void
  /** Gives cached storage back to the system. */
  trim(): void
  /** Upper bound of live bytes; 0 means none. */
  setBudget(bytes: number): void
}

/** How a backend lays out its buffers, without having any: for forecasts. */
export interface MemoryModel {
  /** Where a buffer would lie. */
  alloc(bytes: number): number
  free(address: number, bytes: number): void
  /** A kernel call, for what kernels take beside their arguments. */
  kernel(name: string, args: readonly number[]): void
  /** Bytes of memory that buffers have ever lain in. */
  touchedBytes(): number
  /** Bytes that kernels have taken beside their arguments and keep. */
  scratchBytes(): number
  /** Remembers the state; the function that comes back returns to it, once or often. */
  save(): () => void
}

type H = BufferHandle

/** The kernels that every backend has. `[a, b]` are shapes; all counts are elements unless they say bytes. */
export interface RequiredKernels {
  // --- elementwise over n f32 elements
  fill(out: H, value: number, n: number): void
  /** Copies `bytes` bytes. */
  copy(out: H, src: H, bytes: number): void
  /** out = a + b (out may be a or b). */
  add(out: H, a: H, b: H, n: number): void
  /** out = a · b. */
  mul(out: H, a: H, b: H, n: number): void
  /** out = alpha · x (+ out when accumulate). */
  scale(out: H, x: H, alpha: number, n: number, accumulate: number): void
  /** out[r, :] = x[r, :] · rowScale[r]; accumulate adds. [rows, cols], rowScale [rows]. */
  scaleRows(out: H, x: H, rowScale: H, rows: number, cols: number, accumulate: number): void
  /**
   * out = x · keep / (1 - p), keep of element i from Philox(seed, stream, step, first + i); the same call regenerates the same mask, and pieces of a tensor with their own
   * `first` have the mask of the whole.
   */
  dropout(out: H, x: H, p: number, n: number, seed: number, stream: number, step: number, first: number): void
  /** Uniform in [low, high) from Philox(seed, stream, 0, index). */
  randomUniform(out: H, low: number, high: number, n: number, seed: number, stream: number): void
  /** Normal(mean, std) by Box-Muller on Philox(seed, stream, 0, index). */
  randomNormal(out: H, mean: number, std: number, n: number, seed: number, stream: number): void

  // --- reductions (deterministic order)
  /** out[slot] (f64) = Σ x². */
  sumSquares(out: H, slot: number, x: H, n: number): void
  /** out[slot] (f64) = Σ x. */
  sum(out: H, slot: number, x: H, n: number): void
  /** out[c] (f32, accumulate adds) = Σ_r x[r, c]. */
  sumRows(out: H, x: H, rows: number, cols: number, accumulate: number): void
  /** out[slot] (i32) = number of elements that are not finite. */
  countNonFinite(out: H, slot: number, x: H, n: number): void

  // --- products
  /** c[m, n] = alpha · op(a) · op(b) (+ c); op(a) is [m, k] (stored [k, m] when transA), op(b) is [k, n] (stored [n, k] when transB). All f32. */
  matmul(
    c: H,
    a: H,
    b: H,
    m: number,
    n: number,
    k: number,
    transA: number,
    transB: number,
    alpha: number,
    accumulate: number,
  ): void
  /**
   * y[m, n] = x[m, k] · Wᵀ + t[m, r] · Bᵀ + bias[n] (+ y). W is [n, k] in any weight format; bias, t and b may be NONE; b is f32 [n, r].
   * With t = s · x · Aᵀ this is the LoRA linear layer in one pass.
   */
  linear(
    y: H,
    x: H,
    w: H,
    format: number,
    m: number,
    n: number,
    k: number,
    bias: H,
    t: H,
    b: H,
    r: number,
    accumulate: number,
  ): void
  /**
   * Up to three linear layers on the same x, for passes without gradients: y_i[m, n_i] = x[m, k] · W_iᵀ + scale_i · (x · A_iᵀ) · B_iᵀ + bias_i. W_i is [n_i, k] in any weight
   * format of its own; A_i f32 [r_i, k] and B_i f32 [n_i, r_i] are both given or both NONE; n_i 0 (with NONE everywhere) leaves a layer out.
   */
  linearGroup(
    x: H,
    m: number,
    k: number,
    y0: H,
    w0: H,
    format0: number,
    n0: number,
    bias0: H,
    a0: H,
    b0: H,
    r0: number,
    scale0: number,
    y1: H,
    w1: H,
    format1: number,
    n1: number,
    bias1: H,
    a1: H,
    b1: H,
    r1: number,
    scale1: number,
    y2: H,
    w2: H,
    format2: number,
    n2: number,
    bias2: H,
    a2: H,
    b2: H,
    r2: number,
    scale2: number,
  ): void
  /** dx[m, k] = dy[m, n] · W + dt[m, r] · A (+ dx). W [n, k] in any weight format; dt and a may be NONE; a is f32 [r, k]. */
  linearBackwardInput(
    dx: H,
    dy: H,
    w: H,
    format: number,
    m: number,
    n: number,
    k: number,
    dt: H,
    a: H,
    r: number,
    accumulate: number,
  ): void

  // --- weights
  /** f32 values of `rows` rows of `cols` elements of a stored weight. */
  dequantize(out: H, w: H, format: number, rows: number, cols: number): void
  /** Stores f32 rows in a weight format that has a quantiser (f32, f16, bf16, q8_0, q4_0, q4_1). */
  quantize(out: H, x: H, format: number, rows: number, cols: number): void
  /** out[i, :] = scale · W[ids[i], :]; W [vocab, cols] in any weight format, ids i32 [rows]. */
  embedding(out: H, w: H, format: number, ids: H, rows: number, vocab: number, cols: number, scale: number): void
  /** dw[ids[i], :] += scale · dy[i, :], in row order (deterministic). dw f32 [vocab, cols]. */
  embeddingBackward(dw: H, dy: H, ids: H, rows: number, vocab: number, cols: number, scale: number): void
  /** out[i, :] = x[index[i], :] . */
  gatherRows(out: H, x: H, index: H, rows: number, cols: number): void
  /** out[index[i], :] (+)= x[i, :]; accumulate 0 first zeroes all `outRows` rows. */
  scatterRows(out: H, x: H, index: H, rows: number, cols: number, outRows: number, accumulate: number): void

  // --- transformer parts
  /** y = x · rstd · (w + offset), rstd[r] = 1 / sqrt(mean(x²) + eps). [rows, cols]; w f32 [cols] or NONE (ones). rstd may be NONE. */
  rmsNorm(y: H, rstd: H, x: H, w: H, rows: number, cols: number, eps: number, offset: number): void
  /** dx (+)= ..., dw[cols] += ... (dw may be NONE). */
  rmsNormBackward(
    dx: H,
    dw: H,
    dy: H,
    x: H,
    w: H,
    rstd: H,
    rows: number,
    cols: number,
    offset: number,
    accumulate: number,
  ): void
  /**
   * Rotates in place the first `rotary` channels of every head of x [rows, heads · headDim] (leading dimension ldx) by cos/sin tables
   * [positions, rotary / 2], row positions[i]; `inverse` 1 rotates back (the gradient). Pairs are (c, c + rotary/2), "rotate half".
   */
  rope(
    x: H,
    ldx: number,
    cos: H,
    sin: H,
    positions: H,
    rows: number,
    heads: number,
    headDim: number,
    rotary: number,
    inverse: number,
  ): void
  /** h = act(gate) · up; act 0 = silu, 1 = gelu tanh, 2 = gelu exact. n elements. */
  gatedActivation(h: H, gate: H, up: H, act: number, n: number): void
  /** dgate, dup from dh; dgate may be gate's and dup may be up's own buffer. */
  gatedActivationBackward(dgate: H, dup: H, dh: H, gate: H, up: H, act: number, n: number): void
  /**
   * Causal attention over a forest of segments. segments i32 [count, 3] = (start, length, parent or -1), in row order, parents before children.
   * Row i of a segment sees rows 0..i of its segment and all rows of its ancestors; distance is counted along that path.
   * q [tokens, heads · headDim] with leading dimension ldq, k and v [tokens, kvHeads · headDim] with ldk and ldv; out [tokens, heads · headDim], lse [tokens, heads].
   * window > 0: only the last `window` positions of the path are seen (the row's own included). softcap > 0: s = softcap · tanh(s / softcap).
   * sinks: f32 [heads] extra logit in the denominator, or NONE.
   */
  attention(
    out: H,
    lse: H,
    q: H,
    ldq: number,
    k: H,
    ldk: number,
    v: H,
    ldv: number,
    segments: H,
    count: number,
    tokens: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    window: number,
    softcap: number,
    sinks: H,
  ): void
  /** Gradients of `attention`; dq, dk, dv are contiguous and overwritten; dsinks f32 [heads] is added to (or NONE). */
  attentionBackward(
    dq: H,
    dk: H,
    dv: H,
    dsinks: H,
    dout: H,
    out: H,
    lse: H,
    q: H,
    ldq: number,
    k: H,
    ldk: number,
    v: H,
    ldv: number,
    segments: H,
    count: number,
    tokens: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    window: number,
    softcap: number,
    sinks: H,
  ): void

  // --- loss on scored rows, without a logits tensor. logits = softcap(logitScale · h · Wᵀ)
  /**
   * nll[i] = logsumexp(logits[i]) - logits[i, targets[i]] in nats. When dh is given: dh[i, :] = d(Σ coef·nll)/dh, made in the same pass; when dw (f32 [vocab, hidden])
   * is given the gradient is added to it. h [rows, hidden], W [vocab, hidden] any format, targets i32 [rows], coef f32 [rows].
   */
  linearCrossEntropy(
    nll: H,
    dh: H,
    dw: H,
    h: H,
    w: H,
    format: number,
    targets: H,
    coef: H,
    rows: number,
    vocab: number,
    hidden: number,
    softcap: number,
    logitScale: number,
  ): void
  /**
   * logp[i] = log softmax(logits[i])[targets[i]]; lse[i] kept for the backward pass; entropy[i] in nats, or NONE. When dh is given: dh[i, :] = d logp[i] / d h[i, :], made in the
   * same pass; where W is not trained a backward pass has only to scale its rows.
   */
  linearLogprobs(
    logp: H,
    lse: H,
    entropy: H,
    dh: H,
    h: H,
    w: H,
    format: number,
    targets: H,
    rows: number,
    vocab: number,
    hidden: number,
    softcap: number,
    logitScale: number,
  ): void
  /**
   * dh (overwritten) and dw (added to, or NONE) for given dlogp f32 [rows]. With dentropy f32 [rows] (or NONE) also by the entropies, which `entropy` then holds as the
   * forward pass gave them: d entropy / d logit = -p · (log p + entropy).
   */
  linearLogprobsBackward(
    dh: H,
    dw: H,
    dlogp: H,
    lse: H,
    dentropy: H,
    entropy: H,
    h: H,
    w: H,
    format: number,
    targets: H,
    rows: number,
    vocab: number,
    hidden: number,
    softcap: number,
    logitScale: number,
  ): void

  /**
   * out[i] = the divergence of row i of the student's finished logits zs from the teacher's zt, nats: KL(t || s) at beta 0, KL(s || t) at beta 1, and between them the generalised
   * Jensen-Shannon divergence beta · KL(t || m) + (1 - beta) · KL(s || m) of m = (1 - beta) · s + beta · t. With dz f32 [rows, vocab], which may be zs, also the gradient of Σ coef · out by
   * logits before soft cap and scale, as {@link logits} of these settings made zs. zs, zt f32 [rows, vocab]; coef f32 [rows], needed with dz.
   */
  divergence(
    out: H,
    dz: H,
    zs: H,
    zt: H,
    coef: H,
    rows: number,
    vocab: number,
    beta: number,
    softcap: number,
    logitScale: number,
  ): void

  // --- optimizer
  /**
   * AdamW (Loshchilov & Hutter 2019; update order of torch.optim.AdamW 2.x): g' = gradScale·g; p -= lr·weightDecay·p; m, v moments; p -= lr/bc1 · m / (sqrt(v)/sqrt(bc2) + eps),
   * bc1 = 1-beta1^step, bc2 = 1-beta2^step. All f32 [n].
   */
  adamw(
    p: H,
    g: H,
    m: H,
    v: H,
    n: number,
    lr: number,
    beta1: number,
    beta2: number,
    eps: number,
    weightDecay: number,
    step: number,
    gradScale: number,
  ): void
  /**
   * The same with states in 8 bits: m8 u8 with the signed dynamic map, v8 u8 with the unsigned one, f32 absmax per block of 256 (mAbs, vAbs [ceil(n/256)]);
   * codes and rounding of bitsandbytes (specs: Dettmers et al. 2022). Zeroed states mean zero moments.
   */
  adamw8bit(
    p: H,
    g: H,
    m8: H,
    v8: H,
    mAbs: H,
    vAbs: H,
    n: number,
    lr: number,
    beta1: number,
    beta2: number,
    eps: number,
    weightDecay: number,
    step: number,
    gradScale: number,
  ): void

  // --- generation
  /**
   * Writes k and v rows [rows, kvHeads · headDim] (leading dimensions ldk, ldv) to slots (block · blockSize + offset) of the caches [blocks, blockSize, kvHeads · headDim],
   * stored in `format`: f32 0, f16 1 or q8_0 8 (whose blocks of 32 must divide headDim), rounded as `quantize` does. Slot -1 is skipped.
   */
  cacheWrite(
    kCache: H,
    vCache: H,
    format: number,
    k: H,
    ldk: number,
    v: H,
    ldv: number,
    slots: H,
    rows: number,
    width: number,
  ): void
  /**
   * Attention of query rows over a paged cache in `format` (see `cacheWrite`). Row i belongs to sequence rowSequence[i] and stands at position rowPosition[i]; it sees cache positions
   * max(0, pos - window + 1)..pos of that sequence. blockTable i32 [sequences, maxBlocks]. Rows of one sequence are adjacent and ascending. out [rows, heads · headDim].
   */
  pagedAttention(
    out: H,
    q: H,
    ldq: number,
    kCache: H,
    vCache: H,
    format: number,
    blockTable: H,
    maxBlocks: number,
    blockSize: number,
    rowSequence: H,
    rowPosition: H,
    rows: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    window: number,
    softcap: number,
    sinks: H,
  ): void
  /** logits[rows, vocab] = softcap(logitScale · h · Wᵀ). */
  logits(
    out: H,
    h: H,
    w: H,
    format: number,
    rows: number,
    vocab: number,
    hidden: number,
    softcap: number,
    logitScale: number,
  ): void
  /**
   * Picks one token a row. params f32 [rows, 8] = (temperature, topK, topP, minP, repetitionPenalty, 0, 0, 0); temperature 0 is greedy (lowest id wins a tie).
   * Order of the filters: repetition penalty, temperature, top-k, top-p, min-p (min-p and top-p on the tempered distribution). rng i32 [rows, 4] = (seed low, seed high, stream, step)
   * for Philox. history i32 [rows, maxHistory] holds the ids the penalty applies to, padded with -1. ids i32 [rows]; logp f32 [rows] = log softmax of the untouched logits at the
   * chosen id. logits are not changed.
   */
  sample(
    ids: H,
    logp: H,
    logits: H,
    rows: number,
    vocab: number,
    params: H,
    rng: H,
    history: H,
    maxHistory: number,
  ): void
}

/** Precision of matrix products. */
export type Precision = "f32" | "bf16" | "int8"

/** Settings that every backend factory takes. */
export interface BackendOptions {
  readonly threads?: number
  /** Forces an instruction set, for tests. */
  readonly isa?: string
  /** Live-byte budget; 0 or absent means the device's memory. */
  readonly memoryBudget?: number
  readonly precision?: Precision
}

/** Kernel calls that {@link Backend.capture} recorded, to be enqueued again as a whole. */
export interface Program extends Disposable {
  /** Kernel calls it holds. */
  readonly calls: number
  /** Enqueues all calls in their order, with the buffers they were recorded with. Errors: SLOTH_PROGRAM_DISPOSED. */
  run(): void
}

/** A device: memory and kernels. */
export interface Backend extends Disposable {
  /** "cpu", "cuda:0", "webgpu", "reference". */
  readonly name: string
  readonly device: DeviceInfo
  readonly memory: Memory
  readonly kernels: RequiredKernels
  /** Resolves when all work enqueued so far is done; rejects with the first error of the queue. */
  synchronize(): Promise<void>
  /**
   * Records the kernel calls that `body` makes instead of enqueueing them: work of the same shape that comes again and again (a token, a step) is then enqueued with
   * one call. Buffers that `body` allocates and frees belong to the program and are overwritten by each run; those that it leaves alive hold the last run's results.
   * Buffers from outside must outlive the last run. What changes between runs is written into such buffers before the run.
   * Errors: SLOTH_BACKEND_CAPTURE when `body` writes, reads, synchronizes or captures.
   */
  capture(body: () => void): Program
  /** A new model of how this backend lays out buffers; absent where they take what they ask for. */
  readonly memoryModel?: () => MemoryModel
}
