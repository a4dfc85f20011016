import { definePlugin, PLUGIN_API_VERSION } from "@sloth/core"
import { onlineObjectives as objectives } from "@sloth/rl"

/** The plugin that provides the methods that learn from rewards of sampled completions: grpo, gspo, dr_grpo, dapo, cispo, rloo, reinforce++, ppo, online_dpo, xpo and nash_md, and from a teacher: gkd. */
export const onlineObjectives = () =>
  definePlugin({
    name: "@sloth/rl/online",
    version: "0.1.0",
    apiVersion: PLUGIN_API_VERSION,
    sloth: "^0.1.0",
    provides: { objectives },
  })
