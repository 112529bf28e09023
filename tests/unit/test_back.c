/* The way back's operations: every level against plain loops in double, at odd sizes; one thread and two
 * give the same bits. */
#include <math.h>
#include <string.h>

#include "base/num.h"
#include "base/rng.h"
#include "kernels/back.h"
#include "ops/back.h"
#include "test.h"

static hd_rng rng;

static float *floats(int64_t n) { return aligned_alloc(64, (size_t)(n + 16) / 16 * 64); }

static float *randoms(int64_t n, float size)
{
    float *x = floats(n);
    for (int64_t i = 0; i < n; i++) x[i] = size * hd_rng_normal(&rng);
    return x;
}

static float bf16(float x) { return hd_bf16_to_f32(hd_f32_to_bf16(x)); }

/* |got - want| within eps of the sum of magnitudes that made it. */
static bool near(float got, double want, double magnitude) { return fabs(got - want) <= 1e-6 * magnitude + 1e-6 * fabs(want) + 1e-30; }

typedef struct {
    hd_dev one, two;
    hd_arena work;
} devs;

static void open_devs(devs *d, const hd_kernels *k)
{
    hd_err err;
    CHECK_OK(hd_dev_open(&d->one, 1, false, 512, &err));
    CHECK_OK(hd_dev_open(&d->two, 2, false, 512, &err));
    d->one.k = d->two.k = k;
    CHECK_OK(hd_arena_open(&d->work, "work", 64 << 20, &err));
}

static void close_devs(devs *d)
{
    hd_dev_close(&d->one);
    hd_dev_close(&d->two);
    hd_arena_close(&d->work);
}

/* ---- Products ---- */

/* Jobs whose sides have rows as products read them, and where these are read, nothing else: the same bits. */
static void check_grad_by_act(devs *d, hd_mm_grad j, int rows, const float *dw0, const float *want)
{
    float *dw = floats(j.n * j.ldw);
    size_t mark = d->work.used;
    hd_act x, dy;
    hd_act_init(&x, HD_ACT_BF16, j.k, rows, &d->work);
    hd_act_init(&dy, HD_ACT_BF16, j.n, j.M, &d->work);
    hd_act_pack(&d->one, &x, j.x.f, j.x.ld);
    hd_act_pack(&d->one, &dy, j.dy.f, j.dy.ld);
    memcpy(dw, dw0, (size_t)(j.n * j.ldw) * 4);
    const bool alone = hd_mm_grad_by_act(&d->one, j.kind);
    j.x = (hd_side){alone ? NULL : j.x.f, j.x.ld, &x, 0};
    j.dy = (hd_side){alone ? NULL : j.dy.f, j.dy.ld, &dy, 0};
    j.dw = dw, j.db = NULL;
    hd_mm_grad_run(&d->two, &j, 1, &d->work);
    CHECK(memcmp(dw, want, (size_t)(j.n * j.ldw) * 4) == 0, "%s: by act", d->one.k->level);
    const int half = j.M / 2; // the lower rows by m0, after the upper ones
    if (half >= 256 && half % 256 == 0 && !j.x_row) {
        memcpy(dw, dw0, (size_t)(j.n * j.ldw) * 4);
        j.M = half;
        hd_mm_grad_run(&d->two, &j, 1, &d->work);
        j.x.m0 = j.dy.m0 = half;
        hd_mm_grad_run(&d->two, &j, 1, &d->work);
        CHECK(memcmp(dw, want, (size_t)(j.n * j.ldw) * 4) == 0, "%s: in two parts", d->one.k->level);
    }
    d->work.used = mark;
    free(dw);
}

static void check_grad(devs *d, int M, int64_t n, int64_t k, hd_panel_id kind, bool gather)
{
    int64_t ldx = k + 3, ldy = n + 5, ldw = k + 1;
    float *x = randoms(2 * M * ldx, 1), *dy = randoms(M * ldy, 1), *dw = randoms(n * ldw, 1), *db = randoms(n, 1);
    float *dw2 = floats(n * ldw), *db2 = floats(n), *dw0 = floats(n * ldw), *db0 = floats(n);
    int *row = malloc((size_t)M * sizeof *row);
    for (int m = 0; m < M; m++) row[m] = (int)(hd_rng_u32(&rng) % (uint32_t)(2 * M));
    memcpy(dw0, dw, (size_t)(n * ldw) * 4), memcpy(dw2, dw, (size_t)(n * ldw) * 4);
    memcpy(db0, db, (size_t)n * 4), memcpy(db2, db, (size_t)n * 4);
    hd_mm_grad j = {.x = hd_side_of(x, ldx), .x_row = gather ? row : NULL, .dy = hd_side_of(dy, ldy), .M = M, .n = n, .k = k, .dw = dw, .ldw = ldw, .db = db, .kind = kind};
    hd_mm_grad_run(&d->one, &j, 1, &d->work);
    j.dw = dw2, j.db = db2;
    hd_mm_grad_run(&d->two, &j, 1, &d->work);
    CHECK(memcmp(dw, dw2, (size_t)(n * ldw) * 4) == 0);
    CHECK(memcmp(db, db2, (size_t)n * 4) == 0);
    check_grad_by_act(d, j, 2 * M, dw0, dw);
    bool good = true, bias = true, rounds = d->one.k->bf16_is_faster;
    for (int64_t r = 0; r < n; r++) {
        double b = db0[r], bm = fabs(b);
        for (int m = 0; m < M; m++) b += dy[m * ldy + r], bm += fabs(dy[m * ldy + r]);
        bias &= near(db[r], b, bm);
        for (int64_t c = 0; c < ldw; c++) {
            double want = dw0[r * ldw + c], mag = fabs(want);
            for (int m = 0; c < k && m < M; m++) {
                float a = x[(gather ? row[m] : m) * ldx + c], g = dy[m * ldy + r];
                double p = rounds && kind == HD_PANEL_BF16 ? (double)bf16(a) * bf16(g) : (double)a * g;
                want += p, mag += fabs(p);
            }
            good &= near(dw[r * ldw + c], want, mag);
        }
    }
    CHECK(good);
    CHECK(bias);
    free(x), free(dy), free(dw), free(db), free(dw2), free(db2), free(dw0), free(db0), free(row);
}

/* A panel of bf16, pairs [i / 2][32][2], has zeros from inner position k on to its end. */
static bool zeros_behind(const uint8_t *panel, const hd_panel_kind *kind, int64_t k)
{
    bool zeros = true;
    for (int64_t i = k; kind->id == HD_PANEL_BF16 && (size_t)(i / 2 * 128) < kind->bytes(k); i++)
        for (int r = 0; r < 32; r++) zeros &= ((const uint16_t *)(const void *)panel)[i / 2 * 64 + r * 2 + i % 2] == 0;
    return zeros;
}

/* Panels made from masters multiply as the masters and as their transpose. */
static void check_refresh(devs *d, int64_t n, int64_t k, hd_panel_id id)
{
    const hd_panel_kind *kind = hd_panel_get(id);
    float *w = randoms(n * k, 1);
    hd_linear back = {.src = {.type = HD_F32, .n = k, .k = n}, .kind = kind};
    hd_linear lin = {.src = {.type = HD_F32, .data = (const uint8_t *)w, .row_bytes = (size_t)k * 4, .n = n, .k = k}, .kind = kind, .back = &back};
    size_t a = kind->bytes(k) * (size_t)((n + 31) / 32), b = kind->bytes(n) * (size_t)((k + 31) / 32);
    lin.panels = aligned_alloc(64, a), back.panels = aligned_alloc(64, b);
    memset(lin.panels, 0xaa, a), memset(back.panels, 0xaa, b);
    hd_linear *all[] = {&lin};
    hd_linear_refresh(&d->two, all, 1);
    float *out = malloc((size_t)(n > k ? n : k) * 32 * 4);
    bool same = true;
    for (int64_t p = 0; p * 32 < n; p++) {
        kind->unpack(out, lin.panels + (size_t)p * kind->bytes(k), k);
        same &= zeros_behind(lin.panels + (size_t)p * kind->bytes(k), kind, k);
        for (int64_t i = 0; i < k; i++)
            for (int r = 0; r < 32; r++) {
                float want = p * 32 + r < n ? w[(p * 32 + r) * k + i] : 0;
                same &= out[i * 32 + r] == (id == HD_PANEL_BF16 ? bf16(want) : want);
            }
    }
    for (int64_t p = 0; p * 32 < k; p++) {
        kind->unpack(out, back.panels + (size_t)p * kind->bytes(n), n);
        same &= zeros_behind(back.panels + (size_t)p * kind->bytes(n), kind, n);
        for (int64_t i = 0; i < n; i++)
            for (int r = 0; r < 32; r++) {
                float want = p * 32 + r < k ? w[i * k + p * 32 + r] : 0;
                same &= out[i * 32 + r] == (id == HD_PANEL_BF16 ? bf16(want) : want);
            }
    }
    CHECK(same);
    free(w), free(out), free(lin.panels), free(back.panels);
}

/* ---- Attention: against the formulae in double ---- */

static void plain_attention(const hd_attn_back *a, int row0, int T, double *dq, double *dk, double *dv, double *out, double *lse)
{
    int H = a->n_heads, G = H / a->kv.n_kv, K = a->kv.dk, V = a->kv.dv;
    for (int h = 0; h < H; h++)
        for (int t = 0; t < T; t++) {
            double s[T], p[T], top = -1e30, sum = 0, delta = 0;
            const float *q = a->q + ((int64_t)(row0 + t) * H + h) * K, *go = a->dout + ((int64_t)(row0 + t) * H + h) * V;
            for (int j = 0; j <= t; j++) {
                const float *k = a->k + ((int64_t)(row0 + j) * a->kv.n_kv + h / G) * K;
                s[j] = 0;
                for (int i = 0; i < K; i++) s[j] += (double)q[i] * k[i];
                s[j] *= a->scale;
                top = s[j] > top ? s[j] : top;
            }
            for (int j = 0; j <= t; j++) sum += p[j] = exp(s[j] - top);
            lse[(row0 + t) * H + h] = top + log(sum);
            double *o = out + ((int64_t)(row0 + t) * H + h) * V;
            for (int i = 0; i < V; i++) o[i] = 0;
            for (int j = 0; j <= t; j++) {
                int64_t kr = (int64_t)(row0 + j) * a->kv.n_kv + h / G;
                const float *v = a->kv.v_in_k ? a->k + kr * K : a->v + kr * V;
                p[j] /= sum;
                for (int i = 0; i < V; i++) o[i] += p[j] * v[i];
            }
            for (int i = 0; i < V; i++) delta += o[i] * go[i];
            for (int j = 0; j <= t; j++) {
                int64_t kr = (int64_t)(row0 + j) * a->kv.n_kv + h / G;
                const float *k = a->k + kr * K, *v = a->kv.v_in_k ? k : a->v + kr * V;
                double dp = 0, *gv = a->kv.v_in_k ? dk + kr * K : dv + kr * V;
                for (int i = 0; i < V; i++) dp += (double)go[i] * v[i];
                double ds = p[j] * (dp - delta) * a->scale;
                for (int i = 0; i < V; i++) gv[i] += p[j] * go[i];
                for (int i = 0; i < K; i++) {
                    dq[((int64_t)(row0 + t) * H + h) * K + i] += ds * k[i];
                    dk[kr * K + i] += ds * q[i];
                }
            }
        }
}

static void compare(const float *got, const double *want, int64_t n, const float *same, double far)
{
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) diff += (got[i] - want[i]) * (got[i] - want[i]), size += want[i] * want[i];
    CHECK(sqrt(diff) <= far * sqrt(size), "%g of %g", sqrt(diff), sqrt(size));
    CHECK(memcmp(got, same, (size_t)n * 4) == 0);
}

static void check_attention(devs *d, hd_cache_type type, int H, int n_kv, int K, int V, bool v_in_k, const int *len, int n_seqs)
{
    int M = 0;
    const double far = type == HD_CACHE_BF16 && d->one.k->back->outer_pairs ? 1e-2 : 3e-6; // operands in bf16, or in f32
    for (int i = 0; i < n_seqs; i++) M += len[i];
    hd_attn_back a = {.kv = {.type = type, .n_kv = n_kv, .dk = K, .dv = V, .v_in_k = v_in_k}, .n_heads = H, .scale = 0.4f, .len = len, .n_seqs = n_seqs};
    int64_t nq = (int64_t)M * H * K, no = (int64_t)M * H * V, nk = (int64_t)M * n_kv * K, nv = (int64_t)M * n_kv * V;
    a.q = randoms(nq, 1), a.k = randoms(nk, 1), a.v = randoms(nv, 1), a.dout = randoms(no, 1);
    for (int64_t i = 0; i < nk && type == HD_CACHE_BF16; i++) ((float *)a.k)[i] = bf16(a.k[i]);
    for (int64_t i = 0; i < nv && type == HD_CACHE_BF16; i++) ((float *)a.v)[i] = bf16(a.v[i]);
    double *dq = calloc((size_t)nq, 8), *dk = calloc((size_t)nk, 8), *dv = calloc((size_t)nv, 8), *out = calloc((size_t)no, 8), *lse = calloc((size_t)(M * H), 8);
    for (int i = 0, row = 0; i < n_seqs; row += len[i++]) plain_attention(&a, row, len[i], dq, dk, dv, out, lse);
    float *fo = floats(no), *fl = floats(M * H);
    for (int64_t i = 0; i < no; i++) fo[i] = (float)out[i];
    for (int i = 0; i < M * H; i++) fl[i] = (float)lse[i];
    a.out = fo, a.lse = fl;
    float *g[6] = {randoms(nq, 1), randoms(nk, 1), randoms(nv, 1), randoms(nq, 1), randoms(nk, 1), randoms(nv, 1)};
    CHECK(hd_attn_back_work(&a, 2) <= d->work.cap);
    a.dq = g[0], a.dk = g[1], a.dv = g[2];
    hd_attn_back_run(&d->one, &a, &d->work);
    a.dq = g[3], a.dk = g[4], a.dv = g[5];
    hd_attn_back_run(&d->two, &a, &d->work);
    compare(g[0], dq, nq, g[3], far);
    compare(g[1], dk, nk, g[4], far);
    if (!v_in_k) compare(g[2], dv, nv, g[5], far);
    free((void *)a.q), free((void *)a.k), free((void *)a.v), free((void *)a.dout), free(fo), free(fl);
    free(dq), free(dk), free(dv), free(out), free(lse);
    for (int i = 0; i < 6; i++) free(g[i]);
}

/* A sequence's gradients are the same bits alone and behind another. */
static void check_alone(devs *d, hd_cache_type type)
{
    enum { H = 3, K = 10, FIRST = 40, T = 520, ROWS = FIRST + T };
    float *q = randoms(ROWS * H * K, 1), *k = randoms(ROWS * K, 1), *v = randoms(ROWS * K, 1), *out = randoms(ROWS * H * K, 1), *dout = randoms(ROWS * H * K, 1);
    float *lse = randoms(ROWS * H, 1), *dq[2], *dk[2], *dv[2];
    for (int i = 0; i < ROWS * H; i++) lse[i] += 6; // of probabilities below 1
    for (int both = 0; both < 2; both++) {
        int row = both ? 0 : FIRST;
        dq[both] = randoms(ROWS * H * K, 1), dk[both] = randoms(ROWS * K, 1), dv[both] = randoms(ROWS * K, 1);
        hd_attn_back a = {.kv = {.type = type, .n_kv = 1, .dk = K, .dv = K}, .n_heads = H, .scale = 0.3f,
                          .q = q + row * H * K, .k = k + row * K, .v = v + row * K, .out = out + row * H * K, .dout = dout + row * H * K, .lse = lse + row * H,
                          .dq = dq[both] + row * H * K, .dk = dk[both] + row * K, .dv = dv[both] + row * K,
                          .len = both ? (int[]){FIRST, T} : (int[]){T}, .n_seqs = both + 1};
        hd_attn_back_run(&d->two, &a, &d->work);
    }
    CHECK(memcmp(dq[0] + FIRST * H * K, dq[1] + FIRST * H * K, (size_t)T * H * K * 4) == 0);
    CHECK(memcmp(dk[0] + FIRST * K, dk[1] + FIRST * K, (size_t)T * K * 4) == 0);
    CHECK(memcmp(dv[0] + FIRST * K, dv[1] + FIRST * K, (size_t)T * K * 4) == 0);
    free(q), free(k), free(v), free(out), free(dout), free(lse);
    for (int i = 0; i < 2; i++) free(dq[i]), free(dk[i]), free(dv[i]);
}

/* ---- Rows: gradients against differences in double ---- */

static double norm_dot(const double *x, const float *g, const float *dh, int n, double eps)
{
    double s = 0, y = 0;
    for (int i = 0; i < n; i++) s += x[i] * x[i];
    for (int i = 0; i < n; i++) y += dh[i] * x[i] * g[i] / sqrt(s / n + eps);
    return y;
}

static void check_norm(devs *d, int M, int n, bool add)
{
    float *x = randoms(M * n, 1), *g = randoms(n, 1), *dh = randoms(M * n, 1), *dx = randoms(M * n, 1), *dg = randoms(n, 1);
    float *dx0 = floats(M * n), *dg0 = floats(n), *dx2 = floats(M * n), *dg2 = floats(n);
    memcpy(dx0, dx, (size_t)(M * n) * 4), memcpy(dx2, dx, (size_t)(M * n) * 4), memcpy(dg0, dg, (size_t)n * 4), memcpy(dg2, dg, (size_t)n * 4);
    hd_rmsnorm_back(&d->one, dx, n, add, dg, dh, n, x, n, g, M, n, 1e-5f, &d->work);
    hd_rmsnorm_back(&d->two, dx2, n, add, dg2, dh, n, x, n, g, M, n, 1e-5f, &d->work);
    CHECK(memcmp(dx, dx2, (size_t)(M * n) * 4) == 0);
    CHECK(memcmp(dg, dg2, (size_t)n * 4) == 0);
    double worst = 0, worst_g = 0, xs[n];
    for (int m = 0; m < M; m++)
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < n; k++) xs[k] = x[m * n + k];
            double e = 1e-5, up, down;
            xs[i] += e, up = norm_dot(xs, g, dh + m * n, n, 1e-5f);
            xs[i] -= 2 * e, down = norm_dot(xs, g, dh + m * n, n, 1e-5f);
            double want = (up - down) / (2 * e) + (add ? dx0[m * n + i] : 0);
            worst = fmax(worst, fabs(dx[m * n + i] - want));
        }
    for (int i = 0; i < n; i++) {
        double want = dg0[i];
        for (int m = 0; m < M; m++) {
            double s = 0;
            for (int k = 0; k < n; k++) s += (double)x[m * n + k] * x[m * n + k];
            want += dh[m * n + i] * x[m * n + i] / sqrt(s / n + 1e-5f);
        }
        worst_g = fmax(worst_g, fabs(dg[i] - want));
    }
    CHECK(worst < 2e-5);
    CHECK(worst_g < 2e-5 * M);
    free(x), free(g), free(dh), free(dx), free(dg), free(dx0), free(dg0), free(dx2), free(dg2);
}

static double silu(double g) { return g / (1 + exp(-g)); }

/* With a weight a row: the numbers of `plain` times it, and its own gradient. */
static void check_weighted(devs *d, int M, int n, const float *gate, const float *up, const float *da, const float *const plain[3])
{
    float *w = randoms(M, 1), *dw = floats(M), *to[3];
    for (int i = 0; i < 3; i++) to[i] = floats(M * n);
    hd_swiglu_back(&d->two, &(hd_swiglu_grad){.M = M, .n = n, .gate = gate, .up = up, .da = da, .dgate = to[0], .dup = to[1], .a = to[2], .weight = w, .dw = dw});
    bool scaled = true, sums = true;
    for (int m = 0; m < M; m++) {
        double sum = 0, size = 0;
        for (int i = m * n; i < (m + 1) * n; i++) {
            for (int k = 0; k < 3; k++) scaled &= to[k][i] == w[m] * plain[k][i];
            sum += (double)da[i] * plain[2][i], size += fabs((double)da[i] * plain[2][i]);
        }
        sums &= near(dw[m], sum, size);
    }
    CHECK(scaled, "%s: %d x %d", d->one.k->level, M, n);
    CHECK(sums, "%s: %d x %d", d->one.k->level, M, n);
    free(w), free(dw);
    for (int i = 0; i < 3; i++) free(to[i]);
}

static void check_silu(devs *d, int M, int n)
{
    float *gate = randoms(M * n, 2), *up = randoms(M * n, 1), *da = randoms(M * n, 1), *a = randoms(M * n, 1);
    float *g0 = floats(M * n), *u0 = floats(M * n);
    memcpy(g0, gate, (size_t)(M * n) * 4), memcpy(u0, up, (size_t)(M * n) * 4);
    hd_swiglu_back(&d->two, &(hd_swiglu_grad){.M = M, .n = n, .gate = gate, .up = up, .da = da, .dgate = gate, .dup = up, .a = a});
    double worst = 0, e = 1e-5;
    for (int i = 0; i < M * n; i++) {
        double dg = da[i] * u0[i] * (silu(g0[i] + e) - silu(g0[i] - e)) / (2 * e), du = da[i] * silu(g0[i]);
        worst = fmax(worst, fabs(gate[i] - dg));
        worst = fmax(worst, fabs(up[i] - du));
        worst = fmax(worst, fabs(a[i] - silu(g0[i]) * u0[i]));
    }
    CHECK(worst < 1e-5);
    check_weighted(d, M, n, g0, u0, da, (const float *const[]){gate, up, a});
    free(gate), free(up), free(da), free(a), free(g0), free(u0);
}

static double xent(const double *z, int V, int t, double zloss)
{
    double top = z[0], s = 0;
    for (int i = 1; i < V; i++) top = fmax(top, z[i]);
    for (int i = 0; i < V; i++) s += exp(z[i] - top);
    double lse = top + log(s);
    return lse - z[t] + zloss * lse * lse;
}

static void check_losses(devs *d, int M, int V)
{
    float *z = randoms(M * V, 2), loss[M], lse[M], *z0 = floats(M * V);
    int32_t target[M], id[3 * M];
    float lp[3 * M];
    memcpy(z0, z, (size_t)(M * V) * 4);
    for (int m = 0; m < M; m++) target[m] = m == 1 ? -1 : (int32_t)(hd_rng_u32(&rng) % (uint32_t)V);
    hd_xent_back(&d->two, z, V, target, M, V, 0.25f, 0.01f, loss, lse, NULL);
    double worst = 0, worst_loss = 0, x[V], e = 1e-5;
    for (int m = 0; m < M; m++)
        for (int i = 0; i < V; i++) {
            for (int k = 0; k < V; k++) x[k] = z0[m * V + k];
            double want = 0;
            if (target[m] >= 0) {
                worst_loss = fmax(worst_loss, fabs(loss[m] - xent(x, V, target[m], 0)));
                x[i] += e, want = xent(x, V, target[m], 0.01);
                x[i] -= 2 * e, want = 0.25 * (want - xent(x, V, target[m], 0.01)) / (2 * e);
            }
            worst = fmax(worst, fabs(z[m * V + i] - want));
        }
    CHECK(loss[1] == 0);
    CHECK(worst < 2e-6);
    CHECK(worst_loss < 1e-5);

    /* a teacher of two or three ids at temperature 2: q over them, the student over all; times T^2 */
    memcpy(z, z0, (size_t)(M * V) * 4);
    for (int m = 0; m < M; m++)
        for (int i = 0; i < 3; i++) id[3 * m + i] = i == 2 && m % 2 ? -1 : (m + 5 * i) % V, lp[3 * m + i] = -0.5f - 0.7f * (float)i;
    id[3] = -1;
    hd_distil_back(&d->two, z, V, id, lp, 3, 2, M, V, 0.25f, loss);
    worst = worst_loss = 0;
    for (int m = 0; m < M; m++) {
        int n = m == 1 ? 0 : m % 2 ? 2 : 3;
        double q[3], sum = 0;
        for (int i = 0; i < n; i++) sum += q[i] = exp(lp[3 * m + i] / 2.0);
        for (int i = 0; i < V; i++)
            for (int k = 0; k < V; k++) {
                double f[2] = {0, 0};
                if (k) continue; // one difference for each logit
                for (int side = 0; side < 2; side++)
                    for (int t = 0; t < n; t++) {
                        for (int v = 0; v < V; v++) x[v] = (z0[m * V + v] + (v == i ? (side ? -e : e) : 0)) / 2;
                        f[side] += q[t] / sum * xent(x, V, id[3 * m + t], 0);
                    }
                if (n && i == 0) worst_loss = fmax(worst_loss, fabs(loss[m] - (f[0] + f[1]) / 2));
                worst = fmax(worst, fabs(z[m * V + i] - 0.25 * 4 * (f[0] - f[1]) / (2 * e)));
            }
    }
    CHECK(worst < 5e-6);
    CHECK(worst_loss < 1e-5);
    free(z), free(z0);
}

/* M rows of n numbers, n a multiple of 16, as words of two rows each. */
static uint32_t *pairs_of(const hd_kernels *k, float *x, int M, int n)
{
    uint32_t *words = malloc((size_t)((M + 1) / 2 * n) * sizeof *words);
    for (int m = 0; m < M; m += 2) k->back->pairs(words + m / 2 * n, 0, n, x + m * n, m + 1 < M ? x + (m + 1) * n : NULL, n);
    for (int i = 0; i < M * n; i++) x[i] = bf16(x[i]);
    return words;
}

/* Two rows of n as words, in parts of `wide`; what lies between the parts and behind them is left. */
static void check_pairs(const hd_kernels *k, int n, int wide, bool two)
{
    enum { MOST = 200, LEFT = 0x12345678 };
    const int step = wide + 5, parts = (n + wide - 1) / wide;
    float a[MOST], b[MOST];
    uint32_t to[2 * MOST];
    int wrong = 0;
    for (int i = 0; i < MOST; i++) a[i] = hd_rng_normal(&rng), b[i] = hd_rng_normal(&rng);
    a[0] = NAN, a[n / 2] = INFINITY, b[n - 1] = -0.0f, b[n / 3] = 3.4e38f;
    for (int i = 0; i < 2 * MOST; i++) to[i] = LEFT;
    k->back->pairs(to, (size_t)step, wide, a, two ? b : NULL, n);
    uint16_t a16[MOST], b16[MOST];
    uint32_t same[2 * MOST];
    for (int i = 0; i < MOST; i++) a16[i] = hd_f32_to_bf16(a[i]), b16[i] = hd_f32_to_bf16(b[i]);
    for (int i = 0; i < 2 * MOST; i++) same[i] = LEFT;
    k->back->pairs_bf16(same, (size_t)step, wide, a16, two ? b16 : NULL, n);
    CHECK(memcmp(to, same, sizeof to) == 0, "%s: %d words, %d wide, of bf16", k->level, n, wide);
    for (int i = 0; i < 2 * MOST; i++) {
        const int part = i / step, c = i % step, at = part * wide + c;
        const uint32_t want = part >= parts || c >= wide ? LEFT : at < n ? hd_f32_to_bf16(a[at]) | (two ? (uint32_t)hd_f32_to_bf16(b[at]) << 16 : 0) : 0;
        wrong += to[i] != want;
    }
    CHECK(wrong == 0, "%s: %d words of %d, %d wide", k->level, wrong, n, wide);
}

/* Sums of outer products added to what is there; nothing beside rows x cols is touched, and what lies beside
 * rows of a is not read. */
static void check_outer(const hd_kernels *k, int M, int rows, int cols, bool pairs)
{
    enum { LDA = 48, LDX = 96, LDY = 101 };
    float *a = floats(M * LDA), *x = randoms(M * LDX, 1), *y = randoms(rows * LDY, 1), *old = floats(rows * LDY);
    int wrong = 0;
    for (int i = 0; i < M * LDA; i++) a[i] = i % LDA < rows ? hd_rng_normal(&rng) : NAN;
    memcpy(old, y, (size_t)(rows * LDY) * sizeof *y);
    if (!pairs) k->back->outer(y, LDY, a, LDA, x, LDX, M, rows, cols);
    else {
        uint32_t *wa = pairs_of(k, a, M, LDA), *wx = pairs_of(k, x, M, LDX);
        k->back->outer_pairs(y, LDY, wa, LDA, wx, LDX, (M + 1) / 2, rows, cols);
        free(wa), free(wx);
    }
    for (int i = 0; i < rows; i++)
        for (int c = 0; c < LDY; c++) {
            double sum = old[i * LDY + c], size = fabs(sum);
            for (int m = 0; m < M && c < cols; m++) {
                sum += (double)a[m * LDA + i] * x[m * LDX + c];
                size += fabs((double)a[m * LDA + i] * x[m * LDX + c]);
            }
            wrong += c < cols ? !near(y[i * LDY + c], sum, size) : y[i * LDY + c] != old[i * LDY + c];
        }
    CHECK(wrong == 0, "%s: %d numbers of %d x %d, M %d", k->level, wrong, rows, cols, M);
    free(a), free(x), free(y), free(old);
}

static void check_kernels(const hd_kernels *k)
{
    static const int sizes[][3] = {{1, 1, 1}, {7, 3, 16}, {256, 8, 32}, {33, 17, 31}, {300, 37, 47}, {5, 43, 96}, {64, 16, 65}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int pairs = 0; pairs <= (k->back->outer_pairs != NULL); pairs++) check_outer(k, sizes[i][0], sizes[i][1], sizes[i][2], pairs);
    enum { R = 37, C = 53 };
    float *x = randoms(R * C, 1), *t = randoms(R * C, 1);
    bool same = true;
    k->back->transpose(t, R, x, C, R, C);
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) same &= t[c * R + r] == x[r * C + c];
    CHECK(same);
    for (int n = 1; n < 150; n += 7)
        for (int wide = 16; wide <= 64; wide += 16) check_pairs(k, n, wide, n % 2);
    free(x), free(t);
}

int main(void)
{
    const hd_kernels *k;
    hd_rng_seed(&rng, 11, 3);
    for (int i = 0; (k = hd_kernels_at(i / 2)); i++) {
        devs d;
        hd_kernels other = *k; // gradients of bf16 are products of bf16 where those are faster, else of f32: each level does either
        other.bf16_is_faster ^= true;
        open_devs(&d, i % 2 ? &other : k);
        check_kernels(k);
        for (int kind = 0; kind < 2; kind++) {
            hd_panel_id id = kind ? HD_PANEL_F32 : HD_PANEL_BF16;
            check_grad(&d, 1, 1, 1, id, false);
            check_grad(&d, 300, 33, 70, id, false);
            check_grad(&d, 512, 40, 33, id, false);
            check_grad(&d, 37, 130, 131, id, true);
            check_grad(&d, 513, 16, 5, id, true);
            check_grad(&d, 259, 257, 290, id, false);
            check_grad(&d, 9, 260, 900, id, false); // enough large tiles for two threads
            check_refresh(&d, 1, 1, id);
            check_refresh(&d, 33, 70, id);
            check_refresh(&d, 129, 257, id);
        }
        for (int bf16 = 0; bf16 < 2; bf16++) {
            hd_cache_type type = bf16 ? HD_CACHE_BF16 : HD_CACHE_F32;
            check_attention(&d, type, 4, 2, 6, 6, false, (int[]){1, 70, 33}, 3);
            check_attention(&d, type, 3, 1, 37, 33, true, (int[]){65, 2, 64}, 3);
            check_attention(&d, type, 2, 2, 32, 32, false, (int[]){130}, 1);
            check_attention(&d, type, 2, 1, 70, 70, false, (int[]){97, 64}, 2);
            check_attention(&d, type, 5, 1, 20, 12, true, (int[]){3, 515}, 2); // 5 parts, and none
            check_attention(&d, type, 6, 2, 9, 7, false, (int[]){512, 511}, 2); // 3 parts, and none
            check_alone(&d, type);
        }
        check_norm(&d, 1, 1, false);
        check_norm(&d, 70, 19, true);
        check_norm(&d, 3, 100, false);
        check_silu(&d, 3, 37);
        check_losses(&d, 5, 29);
        close_devs(&d);
    }
    return hd_test_end();
}
