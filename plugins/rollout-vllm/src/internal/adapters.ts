import { randomBytes } from "node:crypto"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import { SlothError } from "@sloth/core"
import type { VllmSettings } from "../settings.ts"
import { messageOf, type Server } from "./server.ts"

const RUNTIME = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"

/** The adapters of one run on the server: one is in use, each under a name of its own, so that no request can meet the weights of another step. */
export class Adapters {
  readonly #settings: VllmSettings
  readonly #server: Server
  readonly #save: (folder: string) => Promise<void>
  // Another run, or this one after a crash, must not meet names that the server still knows.
  readonly #run = randomBytes(4).toString("hex")
  #version = 0
  /** Names that the server may know. */
  readonly #names = new Set<string>()

  constructor(settings: VllmSettings, server: Server, save: (folder: string) => Promise<void>) {
    this.#settings = settings
    this.#server = server
    this.#save = save
  }

  /**
   * Hands the adapter over as it is now and takes the one before off the server. Returns its name there.
   * Errors: SLOTH_VLLM_LORA_DISABLED, SLOTH_VLLM_LORA, those of {@link Server.ask} and of writing files.
   */
  async replace(signal?: AbortSignal): Promise<string> {
    const name = `${this.#settings.loraName}-${this.#run}-${this.#version++}`
    const folder = join(this.#settings.loraDirectory, name)
    const before = [...this.#names]
    // Noted first: a load that is broken off here may be done there.
    this.#names.add(name)
    await this.#save(folder)
    await this.#load(name, signal)
    for (const old of before) await this.#unload(old, signal)
    return name
  }

  /** Takes what is left off the server, and the folders away. A server that does not answer soon keeps what it has. */
  async close(): Promise<void> {
    const limit = AbortSignal.timeout(3000)
    for (const name of this.#names) {
      await this.#unload(name, limit).catch(() => undefined)
      await rm(join(this.#settings.loraDirectory, name), { recursive: true, force: true })
    }
  }

  async #load(name: string, signal: AbortSignal | undefined): Promise<void> {
    const path = `${this.#settings.serverLoraDirectory.replace(/\/+$/, "")}/${name}`
    const answer = await this.#server.ask("/load_lora_adapter", { lora_name: name, lora_path: path }, signal)
    if (answer.status < 300) return
    const message = messageOf(answer)
    // An attempt that timed out here may have been done there.
    if (answer.retried > 0 && /already been loaded/i.test(message)) return
    const fields = { name, path, status: answer.status, message }
    // A route that is not there has no message of vLLM's own.
    if (answer.status === 405 || (answer.status === 404 && !/adapter|lora/i.test(message)))
      throw new SlothError("SLOTH_VLLM_LORA_DISABLED", {
        what: `The server at ${this.#settings.baseUrl} loads no adapters while it runs.`,
        next: `Start it with the environment variable ${RUNTIME}=True and the flag --enable-lora.`,
        fields,
      })
    throw new SlothError("SLOTH_VLLM_LORA", {
      what: `The server does not load the adapter ${path}.`,
      why: message,
      next:
        answer.status === 404
          ? "It must see the folder: set loraDirectory to one that both share, and serverLoraDirectory where its path is another there."
          : "Start it with --enable-lora and with --max-lora-rank of at least the adapter's rank.",
      fields,
    })
  }

  async #unload(name: string, signal: AbortSignal | undefined): Promise<void> {
    // One that the server has forgotten (404) is as good as unloaded.
    const answer = await this.#server.ask("/unload_lora_adapter", { lora_name: name }, signal)
    if (answer.status >= 300 && answer.status !== 404)
      throw new SlothError("SLOTH_VLLM_LORA", {
        what: `The server does not let the adapter ${name} go.`,
        why: messageOf(answer),
        next: "Look at what the server logs.",
        fields: { name, status: answer.status },
      })
    await rm(join(this.#settings.loraDirectory, name), { recursive: true, force: true })
    this.#names.delete(name)
  }
}
