import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { existsSync } from "node:fs"
import { join } from "node:path"
import type { AddressInfo } from "node:net"
import { LocalRollout } from "@sloth/infer"
import { loadPeftAdapter, type CausalLM } from "@sloth/model"
import type { Engine } from "@sloth/tensor"
import { tinyModel } from "../../../packages/rl/src/internal/testing/tiny-grpo.ts"

/** What a request to the server was. */
export interface Asked {
  readonly path: string
  readonly key: string | undefined
  readonly body: Readonly<Record<string, unknown>>
}

/** Answers in place of the server's own: a status with a body, "hang", "drop" (the connection ends), or undefined for its own. */
export type Interference = (asked: Asked, n: number) => { status: number; body: unknown } | "hang" | "drop" | undefined

/** How the server differs from vLLM as it should be started. */
export interface ServerOptions {
  /** The format of answers: with `token_ids`, with ids in log-probs alone, or without either; without log-probs. */
  readonly ids?: "token_ids" | "keys" | "none"
  readonly logprobs?: boolean
  readonly runtimeLora?: boolean
  /** What completions wait for before they are made. */
  readonly gate?: () => Promise<void>
}

/** A server with vLLM's wire format (0.12: completions, models, load and unload of adapters) over a tiny model of our own. */
export class WireServer implements AsyncDisposable {
  readonly asked: Asked[] = []
  options: ServerOptions = {}
  interfere: Interference = () => undefined
  readonly adapters = new Map<string, LocalRollout & Disposable>()
  readonly #engine: Engine
  readonly #models: CausalLM[] = []
  readonly #http = createServer((request, response) => void this.#answer(request, response))
  #turn: Promise<unknown> = Promise.resolve()

  constructor(engine: Engine) {
    this.#engine = engine
  }

  async listen(): Promise<string> {
    await new Promise<void>((done) => this.#http.listen(0, "127.0.0.1", done))
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}/v1`
  }

  paths(): string[] {
    return this.asked.map(({ path }) => path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#http.closeAllConnections()
    await new Promise<void>((done) => this.#http.close(() => done()))
    await this.#turn
    for (const rollout of this.adapters.values()) await rollout[Symbol.asyncDispose]()
    for (const model of this.#models) model[Symbol.dispose]()
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part as Buffer)
    const text = Buffer.concat(parts).toString("utf8")
    const asked: Asked = {
      path: request.url!.replace("/v1/", ""),
      key: request.headers.authorization,
      body: text === "" ? {} : (JSON.parse(text) as Asked["body"]),
    }
    this.asked.push(asked)
    const instead = this.interfere(asked, this.asked.filter(({ path }) => path === asked.path).length - 1)
    if (instead === "hang") return
    if (instead === "drop") return void request.socket.destroy()
    const { status, body } = instead ?? (await this.#own(asked))
    response.writeHead(status, { "content-type": "application/json" })
    response.end(typeof body === "string" ? body : JSON.stringify(body))
  }

  async #own({ path, body }: Asked): Promise<{ status: number; body: unknown }> {
    const refuse = (status: number, type: string, message: string) => ({
      status,
      body: { error: { message, type, param: null, code: status } },
    })
    if (path === "models")
      return {
        status: 200,
        body: {
          object: "list",
          data: [
            { id: "tiny", object: "model", parent: null },
            ...[...this.adapters.keys()].map((id) => ({ id, object: "model", parent: "tiny" })),
          ],
        },
      }
    if (path.endsWith("load_lora_adapter") && this.options.runtimeLora === false)
      return { status: 404, body: { detail: "Not Found" } }
    const name = String(body["lora_name"])
    if (path === "load_lora_adapter") {
      const folder = String(body["lora_path"])
      if (this.adapters.has(name))
        return refuse(400, "InvalidUserInput", `The lora adapter '${name}' has already been loaded.`)
      if (!existsSync(join(folder, "adapter_config.json")))
        return refuse(404, "NotFoundError", `Loading lora ${name} failed: No adapter found for ${folder}`)
      const files = tinyModel()
      const model = files.build(this.#engine)
      this.#models.push(model)
      loadPeftAdapter(model, folder)
      this.adapters.set(name, new LocalRollout(model, { tokenizer: files.tokenizer }) as LocalRollout & Disposable)
      return { status: 200, body: `Success: LoRA adapter '${name}' added successfully.` }
    }
    if (path === "unload_lora_adapter") {
      const rollout = this.adapters.get(name)
      if (rollout === undefined) return refuse(404, "NotFoundError", `The lora adapter '${name}' cannot be found.`)
      this.adapters.delete(name)
      await rollout[Symbol.asyncDispose]()
      return { status: 200, body: `Success: LoRA adapter '${name}' removed successfully.` }
    }
    if (path !== "completions") return { status: 404, body: { detail: "Not Found" } }
    const rollout = this.adapters.get(String(body["model"]))
    if (rollout === undefined)
      return refuse(404, "NotFoundError", `The model \`${String(body["model"])}\` does not exist.`)
    await this.options.gate?.()
    // One after the other: the engine's scopes are those of one caller.
    const made = this.#turn.then(() => this.#complete(rollout, body))
    this.#turn = made.catch(() => undefined)
    return { status: 200, body: await made }
  }

  async #complete(rollout: LocalRollout, body: Asked["body"]): Promise<unknown> {
    const { ids = "token_ids", logprobs = true } = this.options
    const choices: { index: number }[] = []
    const sampling = {
      maxTokens: body["max_tokens"] as number,
      temperature: body["temperature"] as number,
      topP: body["top_p"] as number,
      topK: Math.max(0, body["top_k"] as number),
      minP: body["min_p"] as number,
      repetitionPenalty: body["repetition_penalty"] as number,
      stop: (body["stop"] as string[] | undefined) ?? [],
      stopTokens: body["stop_token_ids"] as number[],
      seed: body["seed"] as number,
    }
    const prompt = { tokens: body["prompt"] as number[], count: body["n"] as number }
    for await (const completion of rollout.generate([prompt], sampling))
      choices.push({
        index: completion.index,
        text: completion.text,
        finish_reason: completion.finishReason,
        stop_reason: null,
        logprobs: logprobs
          ? {
              text_offset: completion.tokens.map(() => 0),
              token_logprobs: completion.logprobs,
              tokens: completion.tokens.map((id) => (ids === "none" ? `<${id}>` : `token_id:${id}`)),
              top_logprobs: completion.tokens.map((id, t) => ({ [`token_id:${id}`]: completion.logprobs[t] })),
            }
          : null,
        prompt_token_ids: ids === "token_ids" ? prompt.tokens : null,
        token_ids: ids === "token_ids" ? completion.tokens : null,
      } as { index: number })
    return { id: "cmpl-1", object: "text_completion", model: body["model"], choices }
  }
}
