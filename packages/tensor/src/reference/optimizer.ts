import type { RequiredKernels } from "@sloth/core"

import type { Call, Define } from "./call.ts"
import { dynamicMap, nearestCode } from "./dynamic-map.ts"
import type { FloatArray } from "./memory.ts"

/** Elements that share one scale of the 8-bit states. */
const BLOCK = 256

interface Hyper {
  readonly lr: number
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  readonly weightDecay: number
  readonly step: number
}

const checkHyper = (c: Call, hyper: Hyper, n: number): void => {
  c.whole("n", n)
  c.whole("step", hyper.step, 1)
  for (const name of ["beta1", "beta2"] as const) {
    c.require(hyper[name] >= 0 && hyper[name] < 1, name, `must be in [0, 1), not ${hyper[name]}`)
  }
}

/** Decays the parameter and moves it along the moments. Source: Loshchilov and Hutter 2019, algorithm 2; the order of operations is torch.optim.AdamW's. */
function move(p: FloatArray, i: number, m: number, v: number, hyper: Hyper): void {
  const { lr, beta1, beta2, eps, weightDecay, step } = hyper
  const correction1 = 1 - beta1 ** step
  const correction2 = 1 - beta2 ** step
  const decayed = p[i]! - lr * weightDecay * p[i]!
  p[i] = decayed - ((lr / correction1) * m) / (Math.sqrt(v) / Math.sqrt(correction2) + eps)
}

/** Optimizer steps. */
export const optimizerKernels = (define: Define): Pick<RequiredKernels, "adamw" | "adamw8bit"> => {
  const signedMap = dynamicMap(true)
  const unsignedMap = dynamicMap(false)
  return {
    adamw: define("adamw", (c, p, g, m, v, n, lr, beta1, beta2, eps, weightDecay, step, gradScale) => {
      const hyper = { lr, beta1, beta2, eps, weightDecay, step }
      checkHyper(c, hyper, n)
      const gradient = c.float("g", g, n)
      const parameter = c.floatOut("p", p, n)
      const first = c.floatOut("m", m, n)
      const second = c.floatOut("v", v, n)
      for (let i = 0; i < n; i++) {
        const grad = gradScale * gradient[i]!
        const mean = beta1 * first[i]! + (1 - beta1) * grad
        const square = beta2 * second[i]! + (1 - beta2) * grad * grad
        first[i] = mean
        second[i] = square
        move(parameter, i, mean, square, hyper)
      }
    }),

    // The step uses the moments before they are rounded to 8 bits. Source: Dettmers et al. 2022, section 2.2.
    adamw8bit: define(
      "adamw8bit",
      (c, p, g, m8, v8, mAbs, vAbs, n, lr, beta1, beta2, eps, weightDecay, step, gradScale) => {
        const hyper = { lr, beta1, beta2, eps, weightDecay, step }
        checkHyper(c, hyper, n)
        const blocks = Math.ceil(n / BLOCK)
        const gradient = c.float("g", g, n)
        const parameter = c.floatOut("p", p, n)
        const firstCodes = c.rawOut("m8", m8, n)
        const secondCodes = c.rawOut("v8", v8, n)
        const firstScale = c.floatOut("mAbs", mAbs, blocks)
        const secondScale = c.floatOut("vAbs", vAbs, blocks)
        const means = new Float64Array(BLOCK)
        const squares = new Float64Array(BLOCK)
        for (let block = 0; block < blocks; block++) {
          const start = block * BLOCK
          const count = Math.min(BLOCK, n - start)
          let mostMean = 0
          let mostSquare = 0
          for (let i = 0; i < count; i++) {
            const grad = gradScale * gradient[start + i]!
            const oldMean = signedMap[firstCodes[start + i]!]! * firstScale[block]!
            const oldSquare = unsignedMap[secondCodes[start + i]!]! * secondScale[block]!
            means[i] = beta1 * oldMean + (1 - beta1) * grad
            squares[i] = beta2 * oldSquare + (1 - beta2) * grad * grad
            mostMean = Math.max(mostMean, Math.abs(means[i]!))
            mostSquare = Math.max(mostSquare, squares[i]!)
            move(parameter, start + i, means[i]!, squares[i]!, hyper)
          }
          firstScale[block] = mostMean
          secondScale[block] = mostSquare
          for (let i = 0; i < count; i++) {
            firstCodes[start + i] = nearestCode(signedMap, mostMean === 0 ? 0 : means[i]! / mostMean)
            secondCodes[start + i] = nearestCode(unsignedMap, mostSquare === 0 ? 0 : squares[i]! / mostSquare)
          }
        }
      },
    ),
  }
}
