import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { SlothError } from "@sloth/core"
import type { Tensor } from "@sloth/tensor"
import { SCORE_WEIGHT, type CausalLM } from "./causal-lm.ts"
import { asFloats } from "./internal/as-floats.ts"
import { attachLora, Lora, loraScale, loraTargets, savedModules, type LoraConfig } from "./lora.ts"
import { readSafetensors } from "./safetensors.ts"
import { writeSafetensors } from "./safetensors-write.ts"

/** What an adapter folder says, in Sloth's words, besides the tensors. */
export interface PeftAdapter {
  readonly config: LoraConfig
  /** Base model named in the file. */
  readonly base: string | undefined
  /** True for an adapter with a score head: a reward or value model. */
  readonly scoreHead: boolean
}

/** The module of a score head, as PEFT lists it in modules_to_save. */
const SCORE = SCORE_WEIGHT.replace(/\.weight$/, "")

const wrong = (path: string, what: string, next: string, fields: Record<string, unknown> = {}): SlothError =>
  new SlothError("SLOTH_ADAPTER_FILE", { what: `${path}: ${what}`, next, fields: { path, ...fields } })

/** What PEFT adds to modules_to_save for sequence classifiers, whichever the model has. */
const HEADS: readonly string[] = [SCORE, "classifier"]

/** adapter_config.json of a LoRA as PEFT 0.17 and later write it. */
export const peftConfig = (
  config: LoraConfig,
  targets: readonly string[],
  base: string,
  scoreHead = false,
): Record<string, unknown> => ({
  peft_type: "LORA",
  task_type: scoreHead ? "SEQ_CLS" : "CAUSAL_LM",
  base_model_name_or_path: base,
  revision: null,
  inference_mode: true,
  r: config.rank,
  lora_alpha: config.alpha,
  lora_dropout: config.dropout,
  // Names shared by all layers when every layer has them, else full paths: PEFT matches both by the end of the path.
  target_modules: config.layers === undefined ? [...new Set(targets.map((t) => t.split(".").at(-1)!))] : [...targets],
  layers_to_transform: null,
  layers_pattern: null,
  rank_pattern: {},
  alpha_pattern: {},
  bias: "none",
  fan_in_fan_out: false,
  use_rslora: config.rankStabilized,
  use_dora: false,
  init_lora_weights: true,
  modules_to_save:
    config.modulesToSave.length === 0 && !scoreHead ? null : [...config.modulesToSave, ...(scoreHead ? [SCORE] : [])],
})

/** Writes `adapter_config.json` and `adapter_model.safetensors`, which PEFT loads; tensors are f32. The folder must be the caller's to fill. `scoreHead: false` leaves the model's head out. */
export const savePeftAdapter = async (
  model: CausalLM,
  folder: string,
  config: LoraConfig,
  base: string,
  options: { readonly scoreHead?: boolean } = {},
): Promise<void> => {
  const hasHead = model.hasScoreHead && options.scoreHead !== false
  mkdirSync(folder, { recursive: true })
  const list: { name: string; tensor: Tensor }[] = model
    .trainables()
    .filter(({ group }) => hasHead || group !== "head")
    .map(({ name, tensor, group }) => ({ name: group === "adapter" ? name : `base_model.model.${name}`, tensor }))
  const score = `base_model.model.${SCORE_WEIGHT}`
  // A head that is not trained any more belongs to the adapter all the same.
  if (hasHead && list.every(({ name }) => name !== score)) list.push({ name: score, tensor: model.scoreHead.tensor })
  // Read one after the other while the file is written: together they would be a copy of the adapter.
  const tensors = list.map(({ name, tensor }) => ({
    name,
    dtype: "F32",
    shape: tensor.shape,
    bytes: tensor.size * 4,
    data: () => model.engine.backend.memory.read(tensor.handle, 0, tensor.size * 4),
  }))
  await writeSafetensors(join(folder, "adapter_model.safetensors"), tensors)
  const targets = [...model.linears].filter(([, l]) => l.adapter !== undefined).map(([p]) => p)
  // Where a name is adapted in some layers only, PEFT needs full paths.
  const partial = [...model.linears.keys()].some(
    (p) => !targets.includes(p) && targets.some((t) => t.split(".").at(-1) === p.split(".").at(-1)),
  )
  const written = peftConfig(partial ? { ...config, layers: [] } : config, targets, base, hasHead)
  writeFileSync(join(folder, "adapter_config.json"), `${JSON.stringify(written, null, 2)}\n`)
}

/** Reads `adapter_config.json`. Errors: SLOTH_ADAPTER_FILE for a kind of adapter or a setting that cannot be honoured. */
export const readPeftConfig = (folder: string): PeftAdapter & { readonly raw: Readonly<Record<string, unknown>> } => {
  const path = join(folder, "adapter_config.json")
  let raw: Record<string, unknown>
  try {
    raw = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>
  } catch (cause) {
    throw new SlothError("SLOTH_ADAPTER_FILE", {
      what: `${path} is missing or not valid JSON.`,
      next: "Give a folder that holds adapter_config.json and adapter_model.safetensors.",
      fields: { path },
      cause,
    })
  }
  if (raw["peft_type"] !== "LORA")
    throw wrong(
      path,
      `the adapter is of type ${JSON.stringify(raw["peft_type"])}; only LORA can be loaded.`,
      "Merge it into its base model first.",
    )
  for (const key of ["use_dora", "lora_bias", "fan_in_fan_out"])
    if (raw[key] === true)
      throw wrong(path, `${key} is set, which is not supported.`, "Merge the adapter into its base model first.")
  if (raw["bias"] !== undefined && raw["bias"] !== "none")
    throw wrong(
      path,
      `bias is ${JSON.stringify(raw["bias"])}; only "none" is supported.`,
      "Merge the adapter into its base model first.",
    )
  for (const key of ["rank_pattern", "alpha_pattern"])
    if (Object.keys((raw[key] as object | null | undefined) ?? {}).length > 0)
      throw wrong(
        path,
        `${key} gives layers different values, which is not supported.`,
        "Merge the adapter into its base model first.",
      )
  const rank = raw["r"]
  const alpha = raw["lora_alpha"]
  if (typeof rank !== "number" || typeof alpha !== "number")
    throw wrong(path, "r or lora_alpha is missing.", "Save the adapter again.")
  const targets = raw["target_modules"]
  const layers = raw["layers_to_transform"]
  const saved = Array.isArray(raw["modules_to_save"]) ? raw["modules_to_save"].map(String) : []
  const scoreHead = raw["task_type"] === "SEQ_CLS" || saved.includes(SCORE)
  return {
    raw,
    base: typeof raw["base_model_name_or_path"] === "string" ? raw["base_model_name_or_path"] : undefined,
    config: {
      rank,
      alpha,
      dropout: typeof raw["lora_dropout"] === "number" ? raw["lora_dropout"] : 0,
      targets: Array.isArray(targets)
        ? targets.map(String)
        : targets === "all-linear"
          ? "all-linear"
          : `/${String(targets)}/`,
      layers: typeof layers === "number" ? [layers] : Array.isArray(layers) ? (layers as number[]) : undefined,
      rankStabilized: raw["use_rslora"] === true,
      modulesToSave: saved.filter((module) => !(scoreHead && HEADS.includes(module))),
    },
    scoreHead,
  }
}

/**
 * Attaches a PEFT adapter from a folder; its tensors are trainable when `trainable`. Every tensor of the file must find its layer and every adapted layer its tensors.
 * Errors: SLOTH_ADAPTER_FILE, SLOTH_ADAPTER_TARGETS.
 */
export const loadPeftAdapter = (
  model: CausalLM,
  folder: string,
  options: { readonly trainable?: boolean } = {},
): PeftAdapter => {
  const { config, base, scoreHead } = readPeftConfig(folder)
  const path = join(folder, "adapter_model.safetensors")
  const table = readSafetensors(path)
  const byName = new Map(table.tensors.map((t) => [t.name, t]))
  const file = readFileSync(path)
  const take = (name: string, shape: readonly number[]): Float32Array => {
    const entry = byName.get(name)
    if (entry === undefined)
      throw wrong(
        path,
        `there is no ${name}.`,
        "The adapter does not fit this model: use the base model it was trained on.",
        { tensor: name, base },
      )
    if (entry.shape.join() !== shape.join())
      throw wrong(
        path,
        `${name} is [${entry.shape.join(", ")}] but this model needs [${shape.join(", ")}].`,
        "Use the base model that the adapter was trained on.",
        { tensor: name, base },
      )
    byName.delete(name)
    const values = asFloats(entry.dtype, file.subarray(entry.offset, entry.offset + entry.bytes))
    if (values !== undefined) return values
    throw wrong(
      path,
      `${name} is stored as ${entry.dtype}; adapters come as F32, F16 or BF16.`,
      "Save the adapter again in one of these.",
      { tensor: name },
    )
  }
  const { engine } = model
  const upload = (values: Float32Array, shape: readonly number[]): Tensor => {
    const t = engine.unscoped(shape)
    t.write(values)
    return options.trainable === true ? engine.parameter(t) : t
  }
  for (const [stream, target] of loraTargets(model, config).entries()) {
    const layer = model.linears.get(target)!
    const [a, b] = [
      [config.rank, layer.inner],
      [layer.out, config.rank],
    ]
    const prefix = `base_model.model.${target}`
    const av = take(`${prefix}.lora_A.weight`, a)
    const bv = take(`${prefix}.lora_B.weight`, b)
    layer.adapter = new Lora(upload(av, a), upload(bv, b), loraScale(config), config.dropout, stream)
  }
  for (const name of savedModules(model, config.modulesToSave)) {
    const ref = model.weights.get(name)!
    const values = take(`base_model.model.${name}`, ref.shape)
    model.trainWeight(name)
    ref.tensor.write(values)
    if (options.trainable !== true) ref.tensor.slot = undefined
  }
  if (scoreHead) {
    const values = take(`base_model.model.${SCORE_WEIGHT}`, [1, model.head.weight.shape.at(-1)!])
    model.addScoreHead(0, values, options.trainable === true)
  }
  if (byName.size > 0)
    throw wrong(
      path,
      `${byName.size} tensors fit nothing in this model, the first is ${[...byName.keys()][0]}.`,
      "Use the base model that the adapter was trained on.",
      { tensors: [...byName.keys()].slice(0, 10), base },
    )
  return { config, base, scoreHead }
}

/** Either a fresh LoRA or one from a folder, as `sloth train` decides. */
export const attachAdapter = (model: CausalLM, config: LoraConfig, seed: number, folder?: string): LoraConfig => {
  if (folder === undefined) {
    attachLora(model, config, seed)
    return config
  }
  return loadPeftAdapter(model, folder, { trainable: true }).config
}
