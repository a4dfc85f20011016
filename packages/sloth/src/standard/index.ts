import { cpu } from "@sloth/kernels-cpu"
import { tensorboard } from "@sloth/tracker-tensorboard"
import { environments } from "./environments.ts"
import { exporters } from "./exporters.ts"
import { llama } from "./llama.ts"
import { onlineObjectives } from "./online-objectives.ts"
import { preferenceObjectives } from "./preference-objectives.ts"
import { reference } from "./reference.ts"
import { rewards } from "./rewards.ts"
import { sft } from "./sft.ts"

export {
  cpu,
  environments,
  exporters,
  llama,
  onlineObjectives,
  preferenceObjectives,
  reference,
  rewards,
  sft,
  tensorboard,
}

/** Everything that comes with Sloth: the CPU and reference backends, the Llama family, supervised fine-tuning, the preference methods, the methods that learn from rewards with rewards and environments by name, the export formats and the TensorBoard tracker. */
export const standardPlugins = () =>
  [
    cpu(),
    reference(),
    llama(),
    sft(),
    preferenceObjectives(),
    onlineObjectives(),
    rewards(),
    environments(),
    exporters(),
    tensorboard(),
  ] as const
