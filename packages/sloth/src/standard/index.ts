import { cpu } from "@sloth/kernels-cpu"
import { exporters } from "./exporters.ts"
import { llama } from "./llama.ts"
import { reference } from "./reference.ts"
import { sft } from "./sft.ts"

export { cpu, exporters, llama, reference, sft }

/** Everything that comes with Sloth: the CPU and reference backends, the Llama family, supervised fine-tuning and the export formats. */
export const standardPlugins = () => [cpu(), reference(), llama(), sft(), exporters()] as const
