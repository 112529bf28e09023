/* Plain versions of the contract in ops/back.h, to be replaced function by function by fast ones (delete here what exists elsewhere). */
#include <assert.h>
#include <math.h>
#include <string.h>
#include "base/num.h"
#include "ops/back.h"
static float rb(float x, hd_panel_id k) { return k == HD_PANEL_BF16 ? hd_bf16_to_f32(hd_f32_to_bf16(x)) : x; }
size_t hd_mm_grad_work(const hd_mm_grad *j, int n, int t) { (void)j; (void)n; (void)t; return 64; }
typedef struct { const hd_mm_grad *j; int n; } mg;
static void mg_row(void *a, int64_t c, int tid) {
    (void)tid; const mg *g = a; const hd_mm_grad *j = g->j; while (c >= j->n) { c -= j->n; j++; }
    float *dw = j->dw + c * j->ldw;
    float b = 0;
    for (int m = 0; m < j->M; m++) {
        float dy = rb(j->dy[m * j->ldy + c], j->kind); b += j->dy[m * j->ldy + c];
        const float *x = j->x + (j->x_row ? j->x_row[m] : m) * j->ldx;
        for (int64_t k = 0; k < j->k; k++) dw[k] += dy * rb(x[k], j->kind);
    }
    if (j->db) j->db[c] += b;
}
void hd_mm_grad_run(hd_dev *d, const hd_mm_grad *jobs, int n, hd_arena *work) {
    (void)work; int64_t rows = 0; for (int i = 0; i < n; i++) rows += jobs[i].n; mg g = {jobs, n}; hd_pool_run(d->pool, rows, mg_row, &g); }
void hd_linear_refresh(hd_dev *d, hd_linear *const *w, int n) {
    for (int i = 0; i < n; i++) {
        for (int dir = 0; dir < 2; dir++) {
            hd_linear *l = dir ? w[i]->back : w[i]; if (!l) continue;
            int64_t N = l->src.n, K = l->src.k; const float *src = (const float *)(const void *)w[i]->src.data;
            bool bf = l->kind->id == HD_PANEL_BF16; size_t es = bf ? 2 : 4;
            uint8_t *tmp = malloc((size_t)(N * K) * es);
            for (int64_t r = 0; r < N; r++) for (int64_t k = 0; k < K; k++) { float v = dir ? src[k * N + r] : src[r * K + k];
                if (bf) ((uint16_t *)tmp)[r * K + k] = hd_f32_to_bf16(v); else ((float *)tmp)[r * K + k] = v; }
            hd_rows rows = {.type = bf ? HD_BF16 : HD_F32, .data = tmp, .row_bytes = (size_t)K * es, .n = N, .k = K};
            for (int64_t p = 0; p * 32 < N; p++) l->kind->pack(l->panels + (size_t)p * l->kind->bytes(K), &rows, p * 32);
            free(tmp);
        }
    } (void)d;
}
size_t hd_attn_back_work(const hd_attn_back *a, int t) { (void)a; (void)t; return 64; }
typedef struct { const hd_attn_back *a; } ab;
static float rc(float x, hd_cache_type t) { return t == HD_CACHE_BF16 ? hd_bf16_to_f32(hd_f32_to_bf16(x)) : t == HD_CACHE_F16 ? hd_f16_to_f32(hd_f32_to_f16(x)) : x; }
static void ab_seq(void *arg, int64_t s, int tid) {
    (void)tid; const hd_attn_back *a = ((ab *)arg)->a; int64_t r0 = 0; for (int i = 0; i < s; i++) r0 += a->len[i];
    int T = a->len[s], H = a->n_heads, G = H / a->kv.n_kv, dk = a->kv.dk, dv = a->kv.dv; bool vk = a->kv.v_in_k; hd_cache_type ty = a->kv.type;
    memset(a->dk + r0 * a->kv.n_kv * dk, 0, (size_t)(T * a->kv.n_kv * dk) * 4); if (!vk) memset(a->dv + r0 * a->kv.n_kv * dv, 0, (size_t)(T * a->kv.n_kv * dv) * 4);
    memset(a->dq + r0 * H * dk, 0, (size_t)(T * H * dk) * 4);
    for (int h = 0; h < H; h++) for (int t = 0; t < T; t++) {
        const float *q = a->q + ((r0 + t) * H + h) * dk, *o = a->out + ((r0 + t) * H + h) * dv, *d_o = a->dout + ((r0 + t) * H + h) * dv; float *dq = a->dq + ((r0 + t) * H + h) * dk;
        double D = 0; for (int i = 0; i < dv; i++) D += (double)d_o[i] * o[i];
        for (int j = 0; j <= t; j++) {
            int64_t kr = (r0 + j) * a->kv.n_kv + h / G; const float *k = a->k + kr * dk, *v = vk ? k : a->v + kr * dv; float *gk = a->dk + kr * dk, *gv = vk ? gk : a->dv + kr * dv;
            double sc = 0, dp = 0; for (int i = 0; i < dk; i++) sc += (double)rc(q[i], ty) * rc(k[i], ty); for (int i = 0; i < dv; i++) dp += (double)d_o[i] * rc(v[i], ty);
            float p = (float)exp(sc * a->scale - a->lse[(r0 + t) * H + h]), ds = (float)(p * (dp - D)) * a->scale;
            for (int i = 0; i < dv; i++) gv[i] += p * d_o[i];
            for (int i = 0; i < dk; i++) { dq[i] += ds * rc(k[i], ty); gk[i] += ds * rc(q[i], ty); }
        } } }
void hd_attn_back_run(hd_dev *d, const hd_attn_back *a, hd_arena *work) { (void)work; ab x = {a}; hd_pool_run(d->pool, a->n_seqs, ab_seq, &x); }
void hd_rmsnorm_back(hd_dev *d, float *dx, int64_t lddx, bool add, float *dg, const float *dh, int64_t lddh, const float *x, int64_t ldx, const float *g, int M, int64_t n, float eps, hd_arena *work) {
    (void)d; (void)work;
    for (int m = 0; m < M; m++, dx += lddx, dh += lddh, x += ldx) {
        double ss = 0, dot = 0; for (int64_t i = 0; i < n; i++) ss += (double)x[i] * x[i]; double r = 1 / sqrt(ss / n + eps);
        for (int64_t i = 0; i < n; i++) dot += (double)g[i] * dh[i] * x[i]; dot /= n;
        for (int64_t i = 0; i < n; i++) { float h = dh[i]; dg[i] += (float)(h * x[i] * r); float v = (float)(r * (g[i] * h - x[i] * r * r * dot)); dx[i] = add ? dx[i] + v : v; }
    } }
void hd_silu_mul_back(hd_dev *d, float *dg, float *du, float *a, const float *da, const float *gate, const float *up, int64_t M, int64_t n) {
    (void)d; for (int64_t i = 0; i < M * n; i++) { float g = gate[i], u = up[i], s = 1 / (1 + expf(-g)), x = da[i]; if (a) a[i] = g * s * u; dg[i] = x * u * s * (1 + g * (1 - s)); du[i] = x * g * s; } }
void hd_xent_back(hd_dev *d, float *z, int64_t ld, const int32_t *t, int M, int64_t V, float scale, float zl, float *loss, float *lse) {
    (void)d; for (int m = 0; m < M; m++, z += ld) { if (t[m] < 0) { loss[m] = 0; memset(z, 0, (size_t)V * 4); continue; }
        double mx = z[0], s = 0; for (int64_t i = 1; i < V; i++) if (z[i] > mx) mx = z[i]; for (int64_t i = 0; i < V; i++) s += exp(z[i] - mx);
        double l = mx + log(s); loss[m] = (float)(l - z[t[m]]); if (lse) lse[m] = (float)l;
        for (int64_t i = 0; i < V; i++) { double p = exp(z[i] - l); z[i] = (float)(scale * (p - (i == t[m]) + 2 * zl * l * p)); } } }
void hd_distil_back(hd_dev *d, float *z, int64_t ld, const int32_t *id, const float *lp, int nt, float T, int M, int64_t V, float scale, float *loss) { (void)d;(void)z;(void)ld;(void)id;(void)lp;(void)nt;(void)T;(void)V;(void)scale; for (int m=0;m<M;m++) loss[m]=0; }
void hd_flat_add(hd_dev *d, float *y, const float *x, int64_t n) { (void)d; for (int64_t i = 0; i < n; i++) y[i] += x[i]; }
void hd_flat_scale(hd_dev *d, float *y, float a, int64_t n) { (void)d; for (int64_t i = 0; i < n; i++) y[i] *= a; }
double hd_flat_sumsq(hd_dev *d, const float *x, int64_t n) { (void)d; double s = 0; for (int64_t i = 0; i < n; i++) s += (double)x[i] * x[i]; return s; }
bool hd_flat_finite(hd_dev *d, const float *x, int64_t n) { (void)d; for (int64_t i = 0; i < n; i++) if (!isfinite(x[i])) return false; return true; }
