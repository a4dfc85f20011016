/** `learningRate` becomes `learning-rate`; dots stay. */
export const camelToKebab = (key: string): string =>
  key.replace(/[A-Z]/g, (letter, at: number) =>
    at === 0 || key[at - 1] === "." ? letter.toLowerCase() : `-${letter.toLowerCase()}`,
  )

/** `learning-rate` (or `learning_rate`) becomes `learningRate`; dots stay. */
export const kebabToCamel = (flag: string): string =>
  flag.replace(/[-_]+([a-zA-Z0-9])/g, (_, letter: string) => letter.toUpperCase())

/** The flag of a configuration key: `lora.rank` is `--lora.rank`, `learningRate` is `--learning-rate`. */
export const keyToFlag = (key: string): string => `--${camelToKebab(key)}`

/** The configuration key of a flag: `--learning-rate` is `learningRate`. */
export const flagToKey = (flag: string): string => kebabToCamel(flag.replace(/^--?/, ""))
