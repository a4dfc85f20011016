export * from "./tracker.ts"
export { default, tensorboard } from "./plugin.ts"
