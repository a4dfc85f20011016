import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

/**
 * A stand-in for a model that judges, so that the example needs no network: it speaks OpenAI's chat completions and likes answers of one short sentence that ends with a full stop.
 * In its place use any server that speaks the same, such as vLLM, llama.cpp or a provider.
 */
export const startJudge = async (): Promise<{
  readonly baseUrl: string
  readonly asked: () => number
  close(): void
}> => {
  let asked = 0
  const server = createServer((request, response) => {
    let body = ""
    request.on("data", (chunk: Buffer) => (body += chunk.toString()))
    request.on("end", () => {
      asked++
      const { messages } = JSON.parse(body) as { messages: readonly { readonly content: string }[] }
      const answer = /Answer to judge:\n<<<\w+\n([\s\S]*?)\n\w+>>>/.exec(messages.at(-1)!.content)?.[1]?.trim() ?? ""
      const words = answer.split(/\s+/).filter((word) => word !== "").length
      const short = words === 0 ? 0 : Math.max(0, 8 - Math.max(0, words - 3))
      const score = short + (/^[A-Z][^.]*\.$/.test(answer) ? 2 : 0)
      const content = `The answer has ${words} words.\nScore: ${score}`
      response.setHeader("content-type", "application/json")
      response.end(JSON.stringify({ choices: [{ message: { role: "assistant", content } }] }))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    asked: () => asked,
    close: () => void server.close(),
  }
}
