export * from "./settings.ts"
export * from "./vllm-rollout.ts"
export { default, rolloutVllm, vllmRollout } from "./plugin.ts"
