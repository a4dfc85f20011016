import * as Effect from "effect/Effect"
import type { SlothError } from "@sloth/core"
import { toSlothError } from "./errors.ts"

type Method = (...args: never[]) => Promise<unknown>

/** The methods of a Sloth instance in Effect form: the error channel holds SlothErrors, interrupting aborts the work and waits for its end. */
export type EffectForms<T, K extends keyof T> = {
  readonly [M in K]: T[M] extends (...args: infer A) => Promise<infer R>
    ? (...args: A) => Effect.Effect<R, SlothError>
    : never
}

/**
 * Turns promise methods into Effect forms. `at` says which argument is the options object that carries `signal`; a signal given by the caller still counts.
 */
export const effectForms = <T, K extends keyof T & string>(
  target: T,
  methods: Readonly<Record<K, number>>,
): EffectForms<T, K> =>
  Object.fromEntries(
    (Object.entries(methods) as [K, number][]).map(([name, at]) => [
      name,
      (...args: unknown[]) =>
        Effect.callback<unknown, SlothError>((resume, signal) => {
          const given = (args[at] ?? {}) as { readonly signal?: AbortSignal }
          const all = [...args]
          all[at] = {
            ...given,
            signal: given.signal === undefined ? signal : AbortSignal.any([signal, given.signal]),
          }
          const work = (target[name] as Method).apply(target, all as never[]).then(
            (value) => resume(Effect.succeed(value)),
            (error: unknown) => resume(Effect.fail(toSlothError(error))),
          )
          // An interrupted fiber waits until the work has ended in good order: a run saves, a model is freed.
          return Effect.promise(() => work)
        }),
    ]),
  ) as unknown as EffectForms<T, K>
