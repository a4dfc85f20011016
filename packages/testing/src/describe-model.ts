import { SlothError } from "@sloth/core"
import { cachedContext, PagedCache } from "@sloth/infer"
import {
  attachLora,
  CausalLM,
  ggufNameOf,
  packedContext,
  randomWeights,
  type GgufMetadata,
  type ModelFamily,
  type ModelShape,
  type PackedOptions,
} from "@sloth/model"
import {
  ACTIVATION_POLICIES,
  createReferenceBackend,
  Engine,
  gatherRows,
  linearLogprobs,
  ModuleBuilder,
  SequenceLayout,
  type Tensor,
} from "@sloth/tensor"
import { defaultTestApi, type TestApi } from "./test-api.ts"

/** What {@link describeModel} needs to know. */
export interface ModelCase<C extends ModelShape> {
  /** A small config.json of this family: few layers, a vocabulary of a hundred or so. */
  readonly config: Readonly<Record<string, unknown>>
  /** False for a family or configuration that GGUF cannot hold. */
  readonly gguf?: boolean
  /** Checks of the decoded configuration that only the author can make. */
  readonly expectConfig?: Partial<C>
}

const fail = (what: string): never => {
  throw new SlothError("SLOTH_TESTING_MODEL", { what })
}
const close = (a: ArrayLike<number>, b: ArrayLike<number>, allowed: number, what: string): void => {
  if (a.length !== b.length) fail(`${what}: ${a.length} values against ${b.length}.`)
  for (let i = 0; i < a.length; i++)
    if (!(Math.abs(a[i]! - b[i]!) <= allowed))
      fail(`${what}: element ${i} is ${a[i]} instead of ${b[i]} (allowed difference ${allowed}).`)
}

/**
 * The conformance kit of model families: configuration in both directions, a GGUF name for every weight, gradients by finite differences in double precision, packed equal to
 * unpacked, a prompt shared by several texts equal to separate ones, all activation policies equal, generation from the cache equal to a pass over the whole text, no leaks.
 */
export const describeModel = <C extends ModelShape>(
  family: ModelFamily<C>,
  cases: Readonly<Record<string, ModelCase<C>>>,
  { describe, test }: TestApi = defaultTestApi(),
): void => {
  for (const [name, c] of Object.entries(cases))
    describe(`model family ${family.name}, ${name}`, () => {
      const config = family.fromHuggingFace(c.config)
      const build = (engine: Engine): CausalLM<C> =>
        new CausalLM(family, config, new ModuleBuilder(engine, randomWeights(engine, 3, 0.3)))
      const tokens = (n: number, from = 1): number[] =>
        Array.from({ length: n }, (_, i) => (from + i * 7) % config.vocab)
      const withEngine = async (body: (engine: Engine) => Promise<void>, float64 = false): Promise<void> => {
        const engine = new Engine(createReferenceBackend({ float64 }))
        try {
          await body(engine)
          const { liveBuffers } = engine.backend.memory.stats()
          if (liveBuffers !== 0) fail(`${liveBuffers} buffers are alive at the end.`)
        } finally {
          engine[Symbol.dispose]()
        }
      }
      /** log-probs of the tokens that follow `rows` of a packed pass. */
      const logprobs = (
        model: CausalLM<C>,
        ids: readonly number[],
        layout: SequenceLayout,
        rows: readonly number[],
        targets: readonly number[],
        options: PackedOptions = {},
      ): Tensor => {
        const { engine, head } = model
        const hidden = model.hidden(packedContext(engine, layout, options), engine.from(Int32Array.from(ids)))
        return linearLogprobs(
          gatherRows(hidden, engine.from(Int32Array.from(rows))),
          head.weight.tensor,
          engine.from(Int32Array.from(targets)),
          head,
        ).logprobs
      }
      const textLogprobs = async (model: CausalLM<C>, text: readonly number[]): Promise<Float32Array> => {
        const n = text.length - 1
        const lp = model.engine.scope(() =>
          logprobs(model, text.slice(0, n), SequenceLayout.fromLengths([n]), [...Array(n).keys()], text.slice(1)),
        )
        const out = (await lp.readFloats()).slice()
        lp.dispose()
        return out
      }

      test("the configuration survives both formats", () => {
        for (const [key, value] of Object.entries(c.expectConfig ?? {}))
          if (JSON.stringify(config[key as keyof C]) !== JSON.stringify(value))
            fail(`${key} is ${JSON.stringify(config[key as keyof C])} instead of ${JSON.stringify(value)}.`)
        const again = family.fromHuggingFace(
          JSON.parse(JSON.stringify(family.toHuggingFace(config))) as Record<string, unknown>,
        )
        if (JSON.stringify(again) !== JSON.stringify(config))
          fail(`config.json changed on the way: ${JSON.stringify(again)} instead of ${JSON.stringify(config)}.`)
        if (c.gguf === false) return
        const { metadata } = family.toGguf(config)
        const read = family.fromGguf(new Map(metadata) as GgufMetadata, {
          has: (n) => n === "output.weight" && !config.tied,
          floats: () => undefined,
        })
        for (const key of ["vocab", "hidden", "layers", "maxPositions", "tied"] as const)
          if (read[key] !== config[key])
            fail(`${key} is ${String(read[key])} after GGUF instead of ${String(config[key])}.`)
      })

      test("every weight has a GGUF name of its own", () =>
        withEngine(async (engine) => {
          using model = build(engine)
          if (c.gguf === false) return
          const names = new Set<string>()
          for (const ref of model.weights.values()) {
            const mapped = ggufNameOf(family, config, ref.name) ?? fail(`${ref.name} has no GGUF name.`)
            if (names.has(mapped.gguf)) fail(`${mapped.gguf} is used twice.`)
            if (Buffer.byteLength(mapped.gguf) > 63) fail(`${mapped.gguf} is longer than GGUF allows.`)
            names.add(mapped.gguf)
          }
        }))

      test("gradients are those of finite differences", () =>
        withEngine(async (engine) => {
          const backend = engine.backend as ReturnType<typeof createReferenceBackend>
          using model = build(engine)
          attachLora(
            model,
            { rank: 2, alpha: 4, dropout: 0, targets: "all-linear", rankStabilized: false, modulesToSave: [] },
            1,
          )
          for (const t of model.trainables())
            if (t.outer) backend.kernels.randomNormal(t.tensor.handle, 0, 0.2, t.tensor.size, 5, 9)
          model.trainAllWeights()
          const ids = tokens(9)
          const run = () => logprobs(model, ids, SequenceLayout.fromLengths([6, 3]), [1, 4, 7], [2, 3, 5])
          const value = (): number => {
            const lp = engine.scope(run)
            const sum = backend
              .readFloat64(lp.handle)
              .slice(0, 3)
              .reduce((a, b) => a + b, 0)
            lp.dispose()
            return sum
          }
          engine.scope(() => {
            const { result, tape } = engine.record(run)
            const ones = engine.empty([3])
            backend.kernels.fill(ones.handle, 1, 3)
            tape.backward([{ tensor: result, gradient: ones }])
          })
          for (const { name: weight, tensor } of model.trainables()) {
            const grad =
              tensor.grad === undefined ? new Float64Array(tensor.size) : backend.readFloat64(tensor.grad.handle)
            const base = backend.readFloat64(tensor.handle)
            for (const i of [0, Math.floor(tensor.size / 2), tensor.size - 1]) {
              const at = (delta: number): number => {
                const moved = base.slice()
                moved[i] = base[i]! + delta
                backend.writeFloat64(tensor.handle, moved)
                return value()
              }
              // Central difference in doubles: h² truncation against 1e-16 / h rounding.
              const expected = (at(1e-5) - at(-1e-5)) / 2e-5
              backend.writeFloat64(tensor.handle, base)
              if (Math.abs(grad[i]! - expected) > 1e-5 * Math.max(1, Math.abs(expected)))
                fail(`the gradient of ${weight}[${i}] is ${grad[i]} instead of ${expected}.`)
            }
          }
        }, true))

      test("leaving out rows that nobody reads changes no loss and no gradient", () =>
        withEngine(async (engine) => {
          using model = build(engine)
          attachLora(
            model,
            { rank: 2, alpha: 4, dropout: 0, targets: "all-linear", rankStabilized: false, modulesToSave: [] },
            1,
          )
          const backend = engine.backend as ReturnType<typeof createReferenceBackend>
          for (const t of model.trainables())
            if (t.outer) backend.kernels.randomNormal(t.tensor.handle, 0, 0.2, t.tensor.size, 5, 9)
          const ids = Int32Array.from(tokens(12))
          // A prompt of 4 with two continuations, and a text of its own.
          const layout = new SequenceLayout([
            { start: 0, length: 4, parent: null },
            { start: 4, length: 3, parent: 0 },
            { start: 7, length: 2, parent: 0 },
            { start: 9, length: 3, parent: null },
          ])
          const read = Int32Array.from([3, 5, 7, 10])
          let first: Float64Array[] | undefined
          for (const [policy, trimmed] of [
            ["keep", false],
            ["keep", true],
            ["recompute", true],
            ["checkpoint", true],
            ["spill", true],
          ] as const) {
            const loss = engine.scope(() => {
              const { result, tape } = engine.record(() => {
                const context = packedContext(engine, layout, { policy, ...(trimmed ? { read } : {}) })
                const hidden = model.hidden(context, engine.from(ids)) // [tokens or read, hidden]
                if (trimmed && hidden.shape[0] !== read.length) fail(`${hidden.shape[0]} rows for ${read.length}.`)
                return linearLogprobs(
                  trimmed ? hidden : gatherRows(hidden, engine.from(read)),
                  model.head.weight.tensor,
                  engine.from(Int32Array.from([2, 3, 5, 7])),
                  model.head,
                ).logprobs
              })
              const ones = engine.empty([4])
              backend.kernels.fill(ones.handle, 1, 4)
              tape.backward([{ tensor: result, gradient: ones }])
              return result
            })
            const got = [
              backend.readFloat64(loss.handle),
              ...model.trainables().map((t) => backend.readFloat64(t.tensor.grad!.handle)),
            ]
            loss.dispose()
            model.clearGradients()
            first ??= got
            for (const [t, g] of got.entries())
              for (const [i, v] of g.entries()) {
                const want = first[t]![i]!
                // Doubles: sums of a few dozen terms in another order, and zero rows more or less, stay far below this.
                if (Math.abs(v - want) > 1e-11 * Math.max(1, Math.abs(want)))
                  fail(`${t === 0 ? "log-prob" : `gradient ${t}`} ${i} is ${v} instead of ${want} (${policy}).`)
              }
          }
        }, true))

      test("packed, shared and recomputed passes agree", () =>
        withEngine(async (engine) => {
          using model = build(engine)
          const prompt = tokens(5)
          const [a, b] = [tokens(4, 3), tokens(3, 11)]
          const alone = [await textLogprobs(model, [...prompt, ...a]), await textLogprobs(model, [...prompt, ...b])]
          // prompt once, both continuations as its children
          const forest = new SequenceLayout([
            { start: 0, length: 5, parent: null },
            { start: 5, length: 4, parent: 0 },
            { start: 9, length: 3, parent: 0 },
          ])
          const shared = engine.scope(() =>
            logprobs(model, [...prompt, ...a, ...b], forest, [4, 5, 6, 7, 4, 9, 10], [...a, ...b]),
          )
          const got = await shared.readFloats()
          shared.dispose()
          close(got, [...alone[0]!.slice(4), ...alone[1]!.slice(4)], 1e-4, "continuations of a shared prompt")
          attachLora(
            model,
            { rank: 2, alpha: 4, dropout: 0.25, targets: "all-linear", rankStabilized: false, modulesToSave: [] },
            1,
          )
          for (const t of model.trainables())
            if (t.outer) engine.backend.kernels.randomNormal(t.tensor.handle, 0, 0.1, t.tensor.size, 5, 9)
          let first: Float32Array[] | undefined
          // Pieces of rows that divide nothing; their dropout masks are those of the whole.
          const ways: readonly PackedOptions[] = [
            ...ACTIVATION_POLICIES.map((policy) => ({ policy })),
            { policy: "checkpoint", rowsAtOnce: 2 },
            { policy: "spill", rowsAtOnce: 7 },
          ]
          for (const way of ways) {
            engine.scope(() => {
              const { result, tape } = engine.record(() =>
                logprobs(model, [...prompt, ...a], SequenceLayout.fromLengths([9]), [4, 5, 6, 7], a, {
                  ...way,
                  dropout: { seed: 3, step: 1 },
                }),
              )
              const ones = engine.empty([4])
              engine.backend.kernels.fill(ones.handle, 1, 4)
              tape.backward([{ tensor: result, gradient: ones }])
            })
            const grads = await Promise.all(
              model.trainables().map(async (t) => (await t.tensor.grad!.readFloats()).slice()),
            )
            model.clearGradients()
            first ??= grads
            // Every piece rounds the sum over rows once more, to 2^-24 of it.
            for (const [i, g] of grads.entries()) {
              const largest = first[i]!.reduce((m, v) => Math.max(m, Math.abs(v)), 0)
              const allowed = way.rowsAtOnce === undefined ? 0 : Math.ceil(9 / way.rowsAtOnce) * 2 ** -23 * largest
              close(g, first[i]!, allowed, `gradients with ${JSON.stringify(way)}`)
            }
          }
        }))

      test("generation from the cache equals a pass over the whole text", () =>
        withEngine(async (engine) => {
          using model = build(engine)
          const text = tokens(13)
          const whole = await textLogprobs(model, text)
          using cache = new PagedCache(model, { maxTokens: 64, blockSize: 4 })
          const sequence = cache.create()
          const got: number[] = []
          for (const rows of [5, 1, 1, 3, 2]) {
            cache.reserve(sequence, rows)
            const from = sequence.length
            const lp = engine.scope(() => {
              const hidden = model.hidden(
                cachedContext(engine, cache, [{ sequence, rows }]),
                engine.from(Int32Array.from(text.slice(from, from + rows))),
              )
              return linearLogprobs(
                hidden,
                model.head.weight.tensor,
                engine.from(Int32Array.from(text.slice(from + 1, from + rows + 1))),
                model.head,
              ).logprobs
            })
            sequence.length += rows
            got.push(...(await lp.readFloats()))
            lp.dispose()
          }
          close(got, whole, 1e-4, "log-probs from the cache")
        }))
    })
}
