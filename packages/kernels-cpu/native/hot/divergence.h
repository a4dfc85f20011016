// How far the distribution of one row of logits is from that of another, and its gradient. Included inside an ISA namespace, after loss.h.
//
// With s the student's and t the teacher's probabilities, beta = 0 is KL(t || s), beta = 1 is KL(s || t), and between them the generalised Jensen-Shannon
// divergence beta KL(t || m) + (1 - beta) KL(s || m) of the mixture m = (1 - beta) s + beta t (Agarwal et al. 2024). By the student's logits the gradients are
// s - t, s (log s - log t - KL(s || t)) and (1 - beta) s (log s - log m - KL(s || m)).

// log(1 + u) for u in [0, 1], as 2 atanh(u / (2 + u)): the argument is at most 1/3, so that the first term left out is below 5e-9.
SLOTH_INLINE vf vlog1p_unit(vf u) {
  const vf w = vdiv(u, vadd(u, vset(2.0f))), q = vmul(w, w);
  vf p = vset(2.0f / 15);
  p = vfma(p, q, vset(2.0f / 13));
  p = vfma(p, q, vset(2.0f / 11));
  p = vfma(p, q, vset(2.0f / 9));
  p = vfma(p, q, vset(2.0f / 7));
  p = vfma(p, q, vset(2.0f / 5));
  p = vfma(p, q, vset(2.0f / 3));
  p = vfma(p, q, vset(2.0f));
  return vmul(p, w);
}

struct DivergenceRow {
  vf ls, lt;          // log-sum-exps
  vf logOwn, logOther;  // log(1 - beta), log(beta)
  bool forward, reverse;
};

// log m of the mixture.
SLOTH_INLINE vf mixture_log(const DivergenceRow& r, vf s, vf t) {
  const vf a = vadd(s, r.logOwn), b = vadd(t, r.logOther);
  const vf hi = vmax(a, b), lo = vmin(a, b);
  return vadd(hi, vlog1p_unit(vexp(vsub(lo, hi))));
}

// One row; dz may be zs.
SLOTH_NOINLINE float divergence_row(float* dz, const float* zs, const float* zt, int64_t vocab, float lseS, float lseT, float factor, float beta, float cap,
                                    float scale) {
  DivergenceRow r;
  r.ls = vset(lseS);
  r.lt = vset(lseT);
  r.forward = beta == 0;
  r.reverse = beta == 1;
  r.logOwn = vset(r.reverse ? 0.0f : static_cast<float>(log1p(-static_cast<double>(beta))));
  r.logOther = vset(r.forward ? 0.0f : static_cast<float>(log(static_cast<double>(beta))));
  double own = 0, other = 0;
  // Stretches are added up in double, as sums over a vocabulary everywhere.
  for (int64_t i = 0; i < vocab;) {
    const int64_t end = min_i(vocab, i + 64 * VW);
    vf a = vzero(), b = vzero();
    for (; i < end; i += VW) {
      const int64_t n = end - i < VW ? end - i : VW;
      const vf s = vsub(n == VW ? vload(zs + i) : vloadn(zs + i, n), r.ls), t = vsub(n == VW ? vload(zt + i) : vloadn(zt + i, n), r.lt);
      vf x, y;
      if (r.forward) {
        x = vzero();
        y = vmul(vexp(t), vsub(t, s));
      } else if (r.reverse) {
        x = vmul(vexp(s), vsub(s, t));
        y = vzero();
      } else {
        const vf m = mixture_log(r, s, t);
        x = vmul(vexp(s), vsub(s, m));
        y = vmul(vexp(t), vsub(t, m));
      }
      if (n < VW) {
        float kept[2][VW];
        vstore(kept[0], x);
        vstore(kept[1], y);
        for (int64_t c = 0; c < n; c++) {
          own += static_cast<double>(kept[0][c]);
          other += static_cast<double>(kept[1][c]);
        }
        continue;
      }
      a = vadd(a, x);
      b = vadd(b, y);
    }
    if (i > end) i = end;
    own += static_cast<double>(vsum(a));
    other += static_cast<double>(vsum(b));
  }
  const double value = r.forward ? other : r.reverse ? own : static_cast<double>(beta) * other + (1.0 - static_cast<double>(beta)) * own;
  if (!dz) return static_cast<float>(value);
  const vf f = vset(factor * scale * (r.forward || r.reverse ? 1.0f : 1.0f - beta)), mean = vset(static_cast<float>(own));
  const vf one = vset(1.0f), inv = vset(cap > 0 ? 1.0f / cap : 0.0f);
  for (int64_t i = 0; i < vocab; i += VW) {
    const int64_t n = vocab - i < VW ? vocab - i : VW;
    const vf z = n == VW ? vload(zs + i) : vloadn(zs + i, n);
    const vf s = vsub(z, r.ls), t = vsub(n == VW ? vload(zt + i) : vloadn(zt + i, n), r.lt);
    vf g;
    if (r.forward) g = vsub(vexp(s), vexp(t));
    else if (r.reverse) g = vmul(vexp(s), vsub(vsub(s, t), mean));
    else g = vmul(vexp(s), vsub(vsub(s, mixture_log(r, s, t)), mean));
    g = vmul(g, f);
    if (cap > 0) {
      const vf u = vmul(z, inv);
      g = vmul(g, vfnma(u, u, one));
    }
    if (n == VW) vstore(dz + i, g);
    else vstoren(dz + i, n, g);
  }
  return static_cast<float>(value);
}

// log sum exp of a row of finished logits.
static float plain_lse(const float* z, int64_t vocab) { return logits_row(const_cast<float*>(z), vocab, 0, 1.0f, 0.0f, false).lse; }

static void divergence(Pool* pool, float* out, float* dz, const float* zs, const float* zt, const float* coef, int64_t rows, int64_t vocab, double beta,
                       double softcap, double logitScale) {
  const float cap = static_cast<float>(softcap), scale = static_cast<float>(logitScale), b = static_cast<float>(beta);
  pool_for(pool, static_cast<int>(rows), [&](int i, int) {
    const int64_t r = i;
    const float* s = zs + r * vocab;
    const float* t = zt + r * vocab;
    out[r] = divergence_row(dz ? dz + r * vocab : nullptr, s, t, vocab, plain_lse(s, vocab), plain_lse(t, vocab), dz ? coef[r] : 0.0f, b, cap, scale);
  });
}
