import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { decodeConfig, field, SlothError, withDefault } from "@sloth/core"
import * as Schema from "effect/Schema"

/** Settings of the rollout engine "vllm". */
export const VllmSettingsSchema = Schema.Struct({
  baseUrl: field
    .text({ description: "Address of the server's OpenAI interface." })
    .pipe(withDefault("http://localhost:8000/v1")),
  model: field
    .text({ description: "The base model as the server names it, looked for at the start; any when absent." })
    .pipe(Schema.optionalKey),
  apiKeyVariable: field
    .text({ description: "Environment variable with the server's key; without one none is sent." })
    .pipe(withDefault("VLLM_API_KEY")),
  loraDirectory: field
    .text({ description: "Folder for adapters that the server reads too; one of the system's when absent." })
    .pipe(Schema.optionalKey),
  serverLoraDirectory: field
    .text({ description: "The same folder as the server sees it, when that is another path." })
    .pipe(Schema.optionalKey),
  loraName: field.text({ description: "What names of adapters on the server begin with." }).pipe(withDefault("sloth")),
  concurrency: field
    .int({ description: "Most requests at the same time; each is a prompt with all its completions.", min: 1 })
    .pipe(withDefault(32)),
  timeoutSeconds: field
    .number({ description: "Longest time for one answer.", unit: "seconds", above: 0 })
    .pipe(withDefault(600)),
  retries: field
    .int({ description: "Further attempts after a failure that may pass.", min: 0, max: 100 })
    .pipe(withDefault(3)),
  retryDelaySeconds: field
    .number({ description: "Pause before the first further attempt; it doubles each time.", unit: "seconds", min: 0 })
    .pipe(withDefault(0.5)),
})

/** Settings as a user gives them; all have defaults. */
export type VllmRolloutOptions = Partial<typeof VllmSettingsSchema.Type>

/** Settings with their defaults. */
export type VllmSettings = Omit<typeof VllmSettingsSchema.Type, "loraDirectory" | "serverLoraDirectory"> & {
  /** Absolute. */
  readonly loraDirectory: string
  readonly serverLoraDirectory: string
}

/** Fills in defaults. Errors: SLOTH_CONFIG_INVALID, SLOTH_VLLM_ADDRESS. */
export const vllmSettings = (options: VllmRolloutOptions): VllmSettings => {
  const settings = decodeConfig(VllmSettingsSchema, options, { name: "rollout-vllm" })
  const baseUrl = settings.baseUrl.replace(/\/+$/, "")
  if (!URL.canParse(baseUrl) || !/^https?:$/.test(new URL(baseUrl).protocol))
    throw new SlothError("SLOTH_VLLM_ADDRESS", {
      what: `"${settings.baseUrl}" is no address of a server.`,
      next: 'Give one like "http://localhost:8000/v1".',
      fields: { baseUrl: settings.baseUrl },
    })
  if (!/^[\w.-]+$/.test(settings.loraName) || settings.loraName.startsWith("."))
    throw new SlothError("SLOTH_VLLM_LORA_NAME", {
      what: `"${settings.loraName}" cannot be the beginning of names of adapters.`,
      why: "It is part of the name of a folder.",
      next: "Use letters, digits, hyphens and underscores.",
      fields: { loraName: settings.loraName },
    })
  const loraDirectory = resolve(settings.loraDirectory ?? join(tmpdir(), "sloth-adapters"))
  return { ...settings, baseUrl, loraDirectory, serverLoraDirectory: settings.serverLoraDirectory ?? loraDirectory }
}
