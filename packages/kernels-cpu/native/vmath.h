// Vector functions beyond simd.h. Included inside an ISA namespace (isa.inc.h).

// For lambdas given to by_vectors: both of its calls are to be inlined, the first with a constant number of lanes.
#define SLOTH_BODY __attribute__((always_inline))

// Body over [from, to) in whole vectors and one partial vector: body(offset, lanes), lanes < VW only at the end.
template <class F>
SLOTH_INLINE void by_vectors(int64_t from, int64_t to, F&& body) {
  int64_t i = from;
  for (; i + VW <= to; i += VW) body(i, static_cast<int64_t>(VW));
  if (i < to) body(i, to - i);
}
SLOTH_INLINE vf vload_part(const float* p, int64_t lanes) { return lanes == VW ? vload(p) : vloadn(p, lanes); }
SLOTH_INLINE void vstore_part(float* p, int64_t lanes, vf v) {
  if (lanes == VW) vstore(p, v);
  else vstoren(p, lanes, v);
}

SLOTH_INLINE vf vneg(vf x) { return vsub(vzero(), x); }

// 1 / (1 + e^-x).
SLOTH_INLINE vf vsigmoid(vf x) { return vdiv(vset(1.0f), vadd(vset(1.0f), vexp(vneg(x)))); }

// Normal density without its factor, e^(-x²/2), with the rounding error of the square put back (it would be multiplied by x²/2 otherwise).
SLOTH_INLINE vf vgauss(vf x) {
  x = vmin(vabs(x), vset(15.0f));  // e^-112 is 0; an infinite square would have no rest
  const vf half = vmul(x, vset(0.5f));
  const vf s = vmul(half, x);
  const vf rest = vfma(half, x, vneg(s));  // zero where there is no fused multiply-add
  const vf e = vexp(vneg(s));
  return vfnma(e, rest, e);
}

// Normal distribution function from e^(-x²/2): erfc(z) = e^(-z²) · P(t) / (1 + 2z) with t = (z - 2) / (z + 2), after Shepherd and Laframboise 1981; the degree-9
// polynomial was fitted here for z in [0, 11], largest relative error 1.8e-8.
SLOTH_INLINE vf vnormal_cdf(vf x, vf gauss) {
  const vf z = vmul(vabs(x), vset(0.70710678118654752f));
  const vf t = vdiv(vsub(z, vset(2.0f)), vadd(z, vset(2.0f)));
  vf p = vset(-0.00039070096681825817f);
  p = vfma(p, t, vset(-0.0012133321724832058f));
  p = vfma(p, t, vset(0.0013110482832416892f));
  p = vfma(p, t, vset(0.008617564104497433f));
  p = vfma(p, t, vset(-0.008061938919126987f));
  p = vfma(p, t, vset(-0.05420048162341118f));
  p = vfma(p, t, vset(0.16405600309371948f));
  p = vfma(p, t, vset(-0.16603176295757294f));
  p = vfma(p, t, vset(-0.09276401996612549f));
  p = vfma(p, t, vset(1.2769783735275269f));
  const vf upper = vmul(vmul(gauss, vset(0.5f)), vdiv(p, vfma(vset(2.0f), z, vset(1.0f))));
  return vselect_lt(x, vzero(), upper, vsub(vset(1.0f), upper));
}
