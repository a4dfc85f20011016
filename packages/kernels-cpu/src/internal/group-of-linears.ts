import { NONE, type BufferHandle, type Memory, type RequiredKernels } from "@sloth/core"

type Group = RequiredKernels["linearGroup"]

/** `linearGroup` made of single products, for precisions whose products know no groups: every layer then has that precision. */
export const groupOfLinears =
  (kernels: RequiredKernels, memory: Memory): Group =>
  (x, m, k, ...layers) => {
    for (let at = 0; at < layers.length; at += 9) {
      const [y, w, format, n, bias, a, b, r, scale] = layers.slice(at, at + 9) as [
        BufferHandle,
        BufferHandle,
        number,
        number,
        BufferHandle,
        BufferHandle,
        BufferHandle,
        number,
        number,
      ]
      if (n === 0) continue
      const low = a === NONE ? NONE : memory.alloc(m * r * 4)
      if (low !== NONE) kernels.matmul(low, x, a, m, r, k, 0, 1, scale, 0)
      kernels.linear(y, x, w, format, m, n, k, bias, low, b, low === NONE ? 0 : r, 0)
      if (low !== NONE) memory.free(low)
    }
  }
