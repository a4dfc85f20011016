import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const folder = join(import.meta.dirname, "../../.cache/peers/llama")

/** True when node-llama-cpp is installed beside the project (`bun run bench:peers llama`). */
export const llamaCppPresent = existsSync(join(folder, "node_modules/node-llama-cpp"))
export const LLAMA_CPP_ABSENT = "node-llama-cpp is absent (bun run bench:peers llama)"

/** What llama.cpp says about token sequences under a GGUF model, with a GGUF LoRA if given; and its ids for a prompt. */
export const llamaCpp = (request: {
  model: string
  lora?: string
  texts: readonly (readonly number[])[]
  prompt?: string
}): { logprobs: (number | null)[][]; prompt?: number[] } => {
  const scratch = mkdtempSync(join(tmpdir(), "sloth-llama-"))
  try {
    const path = join(scratch, "request.json")
    writeFileSync(path, JSON.stringify(request))
    const r = spawnSync("node", [join(import.meta.dirname, "llama-cpp.mjs"), path], {
      cwd: folder,
      encoding: "utf8",
      maxBuffer: 1 << 28,
    })
    const last = r.stdout.trim().split("\n").at(-1) ?? ""
    if (r.status !== 0 || !last.startsWith("{"))
      throw new Error(`llama.cpp failed:\n${r.stdout.slice(-2000)}\n${r.stderr.slice(-4000)}`)
    return JSON.parse(last) as { logprobs: (number | null)[][]; prompt?: number[] }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}
