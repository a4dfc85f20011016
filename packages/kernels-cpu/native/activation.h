// Gated activations: 0 silu, 1 gelu (tanh form), 2 gelu (exact). Included inside an ISA namespace (isa.inc.h).

// Value and derivative of an activation.
struct Activated {
  vf value, slope;
};

template <int ACT, bool SLOPE>
SLOTH_INLINE Activated activate(vf x) {
  const vf one = vset(1.0f);
  const vf half = vset(0.5f);
  Activated r;
  if (ACT == 0) {
    const vf s = vsigmoid(x);
    r.value = vmul(x, s);
    r.slope = SLOPE ? vfma(vmul(r.value, vsub(one, s)), one, s) : one;  // s + x·s·(1 - s)
  } else if (ACT == 1) {
    // x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))) (Hendrycks and Gimpel 2016, section 2)
    const float scale = 0.79788456080286536f;
    const vf square = vmul(x, x);
    const vf inner = vmul(vset(scale), vmul(x, vfma(vset(0.044715f), square, one)));
    const vf t = vtanh(inner);
    const vf up = vmul(half, vadd(one, t));
    r.value = vmul(x, up);
    if (SLOPE) {
      const vf rate = vmul(vset(scale), vfma(vset(3.0f * 0.044715f), square, one));
      r.slope = vfma(vmul(vmul(half, x), vfnma(t, t, one)), rate, up);
    } else {
      r.slope = one;
    }
  } else {
    // x · Φ(x)
    const vf gauss = vgauss(x);
    const vf cdf = vnormal_cdf(x, gauss);
    r.value = vmul(x, cdf);
    r.slope = SLOPE ? vfma(vmul(x, gauss), vset(0.39894228040143268f), cdf) : one;
  }
  return r;
}

template <int ACT>
static inline void gated_forward(Pool* pool, float* h, const float* gate, const float* up, int64_t n) {
  par_elements(pool, n, [=](int64_t from, int64_t to) {
    by_vectors(from, to, [&](int64_t i, int64_t lanes) SLOTH_BODY {
      vstore_part(h + i, lanes, vmul(activate<ACT, false>(vload_part(gate + i, lanes)).value, vload_part(up + i, lanes)));
    });
  });
}

template <int ACT>
static inline void gated_backward(Pool* pool, float* dgate, float* dup, const float* dh, const float* gate, const float* up, int64_t n) {
  par_elements(pool, n, [=](int64_t from, int64_t to) {
    by_vectors(from, to, [&](int64_t i, int64_t lanes) SLOTH_BODY {
      // All loads come before the stores: the outputs may be the buffers of the inputs.
      const vf d = vload_part(dh + i, lanes);
      const vf u = vload_part(up + i, lanes);
      const Activated a = activate<ACT, true>(vload_part(gate + i, lanes));
      vstore_part(dgate + i, lanes, vmul(vmul(d, u), a.slope));
      vstore_part(dup + i, lanes, vmul(d, a.value));
    });
  });
}

static void gatedActivation(Pool* pool, float* h, const float* gate, const float* up, int64_t act, int64_t n) {
  if (act == 0) gated_forward<0>(pool, h, gate, up, n);
  else if (act == 1) gated_forward<1>(pool, h, gate, up, n);
  else gated_forward<2>(pool, h, gate, up, n);
}

static void gatedActivationBackward(Pool* pool, float* dgate, float* dup, const float* dh, const float* gate, const float* up, int64_t act, int64_t n) {
  if (act == 0) gated_backward<0>(pool, dgate, dup, dh, gate, up, n);
  else if (act == 1) gated_backward<1>(pool, dgate, dup, dh, gate, up, n);
  else gated_backward<2>(pool, dgate, dup, dh, gate, up, n);
}

static void activation_fill(KernelTable& t) {
  t.gatedActivation = gatedActivation;
  t.gatedActivationBackward = gatedActivationBackward;
}
