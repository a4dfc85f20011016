import { createReferenceBackend } from "@sloth/tensor"

import { describeBackend } from "./describe-backend.ts"

describeBackend("the reference backend", () => createReferenceBackend())
