export { type AnswerCheck, checkAnswer } from "./check-answer.ts"
export { type NanoFiles, nanoFiles } from "./files.ts"
export * from "./generate/index.ts"
