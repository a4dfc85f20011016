import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { startHub, type HubServer } from "../../model/testing/hub-server.ts"
import { writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject } from "../testing/cli-project.ts"

const project = cliProject("pull")
let hub: HubServer
const run = (...args: string[]) => project.run(args, { env: { HF_ENDPOINT: hub.url } })

beforeAll(async () => {
  const source = await writeSmallModel(join(project.path, "source"))
  const files = Object.fromEntries(readdirSync(source).map((name) => [name, readFileSync(join(source, name))]))
  hub = await startHub({ "org/small": { files, large: ["model.safetensors"] } })
})
afterAll(async () => {
  await hub[Symbol.asyncDispose]()
  project.remove()
})

test("says the size first; with --dry-run nothing else", async () => {
  const { code, stdout, stderr } = await run("pull", "org/small", "--dry-run")
  expect(code, stderr).toBe(0)
  expect(stderr).toMatch(/model\.safetensors {2}\d/)
  expect(stderr).toContain("to download")
  expect(stdout).toBe("")
  const offline = await run("pull", "org/small", "--offline")
  expect(offline.error).toBe("SLOTH_HUB_OFFLINE")
}, 30_000)

test("downloads, goes on after a break, and the model runs without a network from then on", async () => {
  hub.breakAfter.push(1000)
  const { code, stdout, stderr } = await run("pull", "org/small")
  expect(code, stderr).toBe(0)
  expect(readdirSync(stdout.trim())).toContain("model.safetensors")
  const before = hub.requests.length
  const answer = await run(
    "generate",
    "--model",
    "org/small",
    "--prompt",
    "hi",
    "--max-tokens",
    "2",
    "--json",
    "--offline",
  )
  expect(answer.code, answer.stderr).toBe(0)
  expect(hub.requests.length).toBe(before)
  const again = await run("pull", "org/small", "--json", "--offline")
  expect(JSON.parse(again.stdout)).toMatchObject({ model: "org/small", kind: "safetensors", missingBytes: 0 })
}, 30_000)

test("a repository that is not there", async () => {
  const { error, code } = await run("pull", "org/nothing")
  expect(error).toBe("SLOTH_HUB_REPO_NOT_FOUND")
  expect(code).toBe(1)
}, 30_000)
