import type { RequiredKernels } from "@sloth/core"

/**
 * The arguments of every kernel in order: `*` a buffer whose size follows from the counts, `~` a buffer whose least size depends on the data in others,
 * `?` a buffer that may be NONE (in some uses), `#` a whole number of at least 0, `%` one of any sign, `.` a real number.
 */
export const signatures: Record<keyof RequiredKernels, string> = {
  fill: "out* value. n#",
  copy: "out* src* bytes#",
  add: "out* a* b* n#",
  mul: "out* a* b* n#",
  scale: "out* x* alpha. n# accumulate#",
  scaleRows: "out* x* rowScale* rows# cols# accumulate#",
  dropout: "out* x* p. n# seed% stream# step# first#",
  randomUniform: "out* low. high. n# seed% stream#",
  randomNormal: "out* mean. std. n# seed% stream#",
  sumSquares: "out* slot# x* n#",
  sum: "out* slot# x* n#",
  sumRows: "out* x* rows# cols# accumulate#",
  countNonFinite: "out* slot# x* n#",
  matmul: "c* a* b* m# n# k# transA# transB# alpha. accumulate#",
  linear: "y* x* w* format# m# n# k# bias? t? b? r# accumulate#",
  linearGroup:
    "x* m# k# y0* w0* format0# n0# bias0? a0? b0? r0# scale0. y1* w1* format1# n1# bias1? a1? b1? r1# scale1. y2* w2* format2# n2# bias2? a2? b2? r2# scale2.",
  linearBackwardInput: "dx* dy* w* format# m# n# k# dt? a? r# accumulate#",
  dequantize: "out* w* format# rows# cols#",
  quantize: "out* x* format# rows# cols#",
  embedding: "out* w* format# ids* rows# vocab# cols# scale.",
  embeddingBackward: "dw* dy* ids* rows# vocab# cols# scale.",
  gatherRows: "out* x~ index* rows# cols#",
  scatterRows: "out* x* index* rows# cols# outRows# accumulate#",
  rmsNorm: "y* rstd? x* w? rows# cols# eps. offset.",
  rmsNormBackward: "dx? dw? dy* x* w? rstd* rows# cols# offset. accumulate#",
  rope: "x* ldx# cos~ sin~ positions* rows# heads# headDim# rotary# inverse#",
  gatedActivation: "h* gate* up* act# n#",
  gatedActivationBackward: "dgate* dup* dh* gate* up* act# n#",
  attention:
    "out* lse* q* ldq# k* ldk# v* ldv# segments* count# tokens# heads# kvHeads# headDim# scale. window# softcap. sinks?",
  attentionBackward:
    "dq* dk* dv* dsinks? dout* out* lse* q* ldq# k* ldk# v* ldv# segments* count# tokens# heads# kvHeads# headDim# scale. window# softcap. sinks?",
  linearCrossEntropy: "nll* dh? dw? h* w* format# targets* coef? rows# vocab# hidden# softcap. logitScale.",
  linearLogprobs: "logp* lse* entropy? dh? h* w* format# targets* rows# vocab# hidden# softcap. logitScale.",
  linearLogprobsBackward:
    "dh* dw? dlogp* lse* dentropy? entropy? h* w* format# targets* rows# vocab# hidden# softcap. logitScale.",
  divergence: "out* dz? zs* zt* coef? rows# vocab# beta. softcap. logitScale.",
  adamw: "p* g* m* v* n# lr. beta1. beta2. eps. weightDecay. step# gradScale.",
  adamw8bit: "p* g* m8* v8* mAbs* vAbs* n# lr. beta1. beta2. eps. weightDecay. step# gradScale.",
  cacheWrite: "kCache~ vCache~ format# k* ldk# v* ldv# slots* rows# width#",
  pagedAttention:
    "out* q* ldq# kCache~ vCache~ format# blockTable~ maxBlocks# blockSize# rowSequence* rowPosition* rows# heads# kvHeads# headDim# scale. window# softcap. sinks?",
  logits: "out* h* w* format# rows# vocab# hidden# softcap. logitScale.",
  sample: "ids* logp* logits* rows# vocab# params* rng* history* maxHistory#",
}
