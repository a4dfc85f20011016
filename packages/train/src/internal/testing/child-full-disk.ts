// A run on a disk that fills up: `child-full-disk.ts <folder> <never|later>`. A filler file appears at step 4, and goes at step 8 with "later".
import { rmSync, statfsSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { isSlothError } from "@sloth/core"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { train } from "../../train.ts"
import { countingExamples, randomFiles } from "./tiny.ts"

const [folder, mode] = process.argv.slice(2) as [string, string]
const filler = join(dirname(folder), "filler")
using engine = new Engine(createReferenceBackend())
try {
  const result = await train({
    engine,
    model: randomFiles({ hidden: 64, vocab: 400 }),
    data: { examples: countingExamples(24, 400) },
    measure: false,
    run: folder,
    config: { batch: 4, steps: 10, saveEvery: 2, rank: 4, modulesToSave: ["embed_tokens"] },
    onEvent: (event) => {
      if (event.type === "warning") console.log(`warning ${event.code} ${event.step}`)
      if (event.type === "checkpoint") console.log(`saved ${event.step}`)
      if (event.type !== "step") return
      if (event.step === 3) {
        // Room for events but not for a checkpoint.
        const { bavail, bsize } = statfsSync(dirname(folder))
        writeFileSync(filler, new Uint8Array(bavail * bsize - 160_000))
      }
      if (event.step === 8 && mode === "later") rmSync(filler)
    },
  })
  console.log(result.status)
} catch (error) {
  console.log(isSlothError(error) ? `error ${error.code}` : String(error))
}
