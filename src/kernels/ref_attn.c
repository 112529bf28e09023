/* Attention in plain C: positions are read one by one through hd_kv_load, every sum is in double. */
#include "kernels/attn.h"
#include "kernels/level.h"

#include <math.h>
#include <string.h>

/* Heads are read one at a time: a shape of one head, and that head's part of the page. */
static const uint8_t *head_part(const hd_attn_tile *t, int64_t position, hd_kv_shape *one)
{
    *one = *t->kv;
    one->n_kv = 1;
    return t->pages[position / HD_PAGE_TOK] + (size_t)t->kv_head * hd_kv_page_bytes(one);
}

static void segment_ref(const hd_attn_tile *t, int64_t seg, float *o, float *m, float *l, void *scratch)
{
    int dk = t->kv->dk, dv = t->kv->dv, ldo = hd_attn_ldo(dv), n_seen = 0;
    int64_t start = seg * HD_SEG_TOK;
    double *acc = scratch;                                // [n][dv]
    float *score = (float *)(acc + (size_t)t->n * (size_t)dv); // [n][HD_SEG_TOK]
    float *kv = score + (size_t)t->n * HD_SEG_TOK;        // [max(dk, dv)]
    int seen[HD_ATTN_TILE];                               // positions of the segment that each row sees
    hd_kv_shape one;

    for (int i = 0; i < t->n; i++) {
        int64_t c = t->pos[(t->first + i) / t->group] + 1 - start;
        seen[i] = c < 0 ? 0 : c > HD_SEG_TOK ? HD_SEG_TOK : (int)c;
        if (seen[i] > n_seen) n_seen = seen[i];
        m[i] = -INFINITY;
    }
    for (int j = 0; j < n_seen; j++) {
        const uint8_t *part = head_part(t, start + j, &one);
        hd_kv_load(&one, part, j % HD_PAGE_TOK, kv, NULL);
        for (int i = 0; i < t->n; i++) {
            int r = t->first + i, head = t->kv_head * t->group + r % t->group;
            const float *q = t->q + ((int64_t)(r / t->group) * t->kv->n_kv * t->group + head) * dk;
            double s = 0;
            for (int d = 0; d < dk; d++) s += (double)q[d] * kv[d];
            float x = (float)(s * t->scale);
            score[i * HD_SEG_TOK + j] = x;
            if (j < seen[i] && !(x <= m[i])) m[i] = x; // a NaN stays
        }
    }
    for (int i = 0; i < t->n; i++) {
        double sum = 0;
        for (int j = 0; j < seen[i]; j++) {
            float *p = score + i * HD_SEG_TOK + j;
            *p = (float)exp((double)*p - m[i]);
            sum += *p;
        }
        l[i] = (float)sum;
    }
    memset(acc, 0, (size_t)t->n * (size_t)dv * sizeof *acc);
    for (int j = 0; j < n_seen; j++) {
        const uint8_t *part = head_part(t, start + j, &one);
        hd_kv_load(&one, part, j % HD_PAGE_TOK, NULL, kv);
        for (int i = 0; i < t->n; i++)
            for (int d = 0; d < dv && j < seen[i]; d++)
                acc[i * dv + d] += (double)score[i * HD_SEG_TOK + j] * kv[d];
    }
    for (int i = 0; i < t->n; i++)
        for (int d = 0; d < dv; d++) o[i * ldo + d] = (float)acc[i * dv + d];
}

static void merge_ref(float *o, float *m, float *l, const float *o2, float m2, float l2, int dv)
{
    float max = *m > m2 ? *m : m2;
    double a = exp((double)*m - max), b = exp((double)m2 - max);
    for (int d = 0; d < dv; d++) o[d] = (float)(o[d] * a + o2[d] * b);
    *l = (float)(*l * a + l2 * b);
    *m = max;
}

static void store_ref(const hd_kv_shape *s, uint8_t *page, int slot, int n, const float *k, const float *v)
{
    for (int i = 0; i < n; i++, k += s->n_kv * s->dk, v += s->v_in_k ? 0 : s->n_kv * s->dv) hd_kv_store(s, page, slot + i, k, v);
}

void hd_fill_attn_ref(hd_kernels *k)
{
    static const hd_attn_kernels table = {segment_ref, merge_ref, store_ref, hd_kv_round, 1};
    k->attn = &table;
}
