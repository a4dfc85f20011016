export { describeBackend, type DescribeBackendOptions } from "./describe-backend.ts"
export { defaultTestApi, type TestApi } from "./test-api.ts"
export { describeModel, type ModelCase } from "./describe-model.ts"
