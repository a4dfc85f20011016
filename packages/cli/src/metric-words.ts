import { fixed } from "./terminal/text.ts"

/** A figure of a training method, as it is shown beside the loss. */
interface Headline {
  readonly key: string
  readonly name: string
  readonly text: (value: number) => string
}

const plain = (value: number): string => fixed(value, Math.abs(value) < 10 ? 3 : 1)
const percent = (value: number): string => `${(value * 100).toFixed(0)} %`

/** What says most about how a method goes, the most telling first. */
const HEADLINES: readonly Headline[] = [
  { key: "reward", name: "reward", text: plain },
  { key: "rewards/margins", name: "margin", text: plain },
  { key: "rewards/accuracies", name: "accuracy", text: percent },
  { key: "steps/accuracies", name: "accuracy", text: percent },
  { key: "kl", name: "kl", text: plain },
  { key: "nats", name: "nats", text: plain },
]

/** The few figures of a step or an evaluation that are shown beside the loss: "margin 0.62". */
export const headlines = (metrics: Readonly<Record<string, number>> | undefined, most = 2): readonly string[] =>
  HEADLINES.flatMap(({ key, name, text }) => {
    const value = metrics?.[key]
    return value === undefined || !Number.isFinite(value) ? [] : [`${name} ${text(value)}`]
  }).slice(0, most)
