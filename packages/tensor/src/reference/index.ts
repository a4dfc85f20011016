export { createReferenceBackend, type ReferenceBackend, type ReferenceBackendOptions } from "./backend.ts"
export { dynamicMap, nearestCode } from "./dynamic-map.ts"
export { philox, seedWords, uniformOf } from "./random.ts"
