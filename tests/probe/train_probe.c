/* One training step or a few, for comparison with other programs:
 *
 *   train_probe MODELDIR BATCH.json OUT.safetensors [--steps N] [--optim adamw|muon] [--lr X] [--clip X]
 *   [--weight-decay X]
 *               [--precision f32|bf16|fp8] [--threads N] [--recompute] [--wsd WARMUP,DECAY] [--val VAL.json]
 *
 * BATCH.json: {"batches": [{"tok": [...], "target": [...], "len": [...], "weight": [...], "teacher_id":
 * [[...], ...], "teacher_logp": [[...], ...]}, ...], "mtp_weight": x, "balance_alpha": x, "zloss": x,
 * "distil_weight": x, "temperature": x}; what is optional may be absent.  Step i takes batch i, from the
 * beginning again after the last.
 *
 * OUT: "grad.NAME", the gradients of the first batch at the weights of MODELDIR, and, after the steps,
 * "weight.NAME".  One line of JSON for each step on stdout: the parts of the loss as sums, targets, the
 * gradient's norm; with --val a last one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/json.h"
#include "model/safetensors_write.h"
#include "model/train_pass.h"
#include "ops/back.h"
#include "train/optim.h"
#include "train/schedule.h"

typedef struct {
    hd_micro m;
    int32_t *tok, *target, *teacher_id;
    int *len;
    float *teacher_logp, *weight;
} batch;

typedef struct {
    hd_pass_opts pass;
    hd_optim_config optim;
    hd_schedule schedule;
    hd_train_precision precision;
    int steps, threads;
    double clip;
    const char *val;
} opts;

/* ---- Batches ------------------------------------------------------------------------------------------- */

/* All numbers of a list, or of a list of lists, as 4-byte integers or floats; NULL where there is none. */
static void *numbers(const json_t *list, bool whole, int *n)
{
    const json_t *first = json_array_get(list, 0);
    size_t rows = json_array_size(list), cols = json_is_array(first) ? json_array_size(first) : 1;
    *n = (int)rows;
    if (!list) return NULL;
    uint32_t *out = calloc(rows * cols + 1, sizeof *out);
    for (size_t i = 0; out && i < rows * cols; i++) {
        const json_t *j = json_array_get(list, i / cols);
        if (json_is_array(j)) j = json_array_get(j, i % cols);
        int32_t id = (int32_t)json_integer_value(j);
        float x = (float)json_number_value(j);
        memcpy(&out[i], whole ? (const void *)&id : (const void *)&x, 4);
    }
    return out;
}

static batch batch_of(const json_t *j)
{
    batch b = {0};
    int unused;
    const json_t *top = json_object_get(j, "teacher_id");
    b.tok = numbers(json_object_get(j, "tok"), true, &b.m.n_rows);
    b.target = numbers(json_object_get(j, "target"), true, &unused);
    b.len = numbers(json_object_get(j, "len"), true, &b.m.n_docs);
    b.weight = numbers(json_object_get(j, "weight"), false, &unused);
    b.teacher_id = numbers(top, true, &unused);
    b.teacher_logp = numbers(json_object_get(j, "teacher_logp"), false, &unused);
    b.m.n_top = top ? (int)json_array_size(json_array_get(top, 0)) : 0;
    b.m.tok = b.tok, b.m.target = b.target, b.m.len = b.len, b.m.weight = b.weight;
    b.m.teacher_id = b.teacher_id, b.m.teacher_logp = b.teacher_logp;
    return b;
}

static void batch_free(batch *b)
{
    free(b->tok), free(b->target), free(b->len), free(b->weight), free(b->teacher_id), free(b->teacher_logp);
}

static hd_status read_json(json_t **out, const char *path, hd_err *err)
{
    json_error_t e;
    *out = json_load_file(path, 0, &e);
    return *out ? HD_OK : hd_fail(err, HD_FORMAT, "%s: line %d: %s", path, e.line, e.text);
}

/* ---- Steps --------------------------------------------------------------------------------------------- */

static hd_status one_pass(hd_model *m, const batch *b, const opts *o, bool backward, hd_pass_result *r,
                          hd_err *err)
{
    hd_pass_opts p = o->pass;
    int n = 0;
    for (int i = 0; i < b->m.n_rows; i++) n += b->target[i] >= 0;
    int64_t n_mtp = hd_micro_mtp_targets(&b->m);
    p.loss_scale = 1.0f / (float)(n > 0 ? n : 1);
    p.mtp_scale = 1.0f / (float)(n_mtp > 0 ? n_mtp : 1);
    p.balance_scale = 1.0f / (float)b->m.n_docs;
    p.backward = backward;
    *r = (hd_pass_result){0};
    return hd_train_pass(m, &b->m, &p, r, err);
}

static void tell(const hd_pass_result *r, double norm)
{
    printf("{\"loss\": %.9g, \"mtp_loss\": %.9g, \"distil_loss\": %.9g, \"balance_loss\": %.9g, "
           "\"n_target\": %lld, "
           "\"n_mtp\": %lld, \"grad_norm\": %.9g}\n",
           r->loss, r->mtp_loss, r->distil_loss, r->balance_loss, (long long)r->n_target, (long long)r->n_mtp,
           norm);
    fflush(stdout);
}

static hd_status train(hd_model *m, const batch *b, int n, const opts *o, float *first_g, hd_err *err)
{
    hd_status st;
    hd_params *p = hd_model_params(m);
    hd_dev *d = hd_model_dev(m);
    hd_optim *optim = NULL;
    HD_TRY(hd_optim_open(&optim, p, &o->optim, NULL, 0, err));
    for (int step = 0; step < o->steps || step == 0; step++) {
        hd_pass_result r;
        memset(p->g, 0, (size_t)p->n_flat * sizeof *p->g);
        HD_TRY(one_pass(m, &b[step % n], o, true, &r, err));
        double norm = sqrt(hd_flat_sumsq(d, p->g, p->n_flat));
        tell(&r, norm);
        if (step == 0) memcpy(first_g, p->g, (size_t)p->n_flat * sizeof *p->g);
        if (o->steps == 0) break;
        hd_optim_step(optim, d, p->w, p->g, hd_schedule_lr(&o->schedule, step + 1),
                      hd_clip_scale(norm, o->clip), step + 1);
        hd_params_refresh(m);
    }
fail:
    hd_optim_close(optim);
    return st;
}

static hd_status validate(hd_model *m, const opts *o, hd_err *err)
{
    hd_status st;
    json_t *j = NULL;
    hd_pass_result all = {0};
    HD_TRY(read_json(&j, o->val, err));
    const json_t *list = json_object_get(j, "batches");
    for (size_t i = 0; i < json_array_size(list); i++) {
        batch b = batch_of(json_array_get(list, i));
        hd_pass_result r;
        st = one_pass(m, &b, o, false, &r, err);
        batch_free(&b);
        if (st != HD_OK) goto fail;
        all.loss += r.loss, all.mtp_loss += r.mtp_loss, all.n_target += r.n_target, all.n_mtp += r.n_mtp;
    }
    tell(&all, 0);
fail:
    json_decref(j);
    return st;
}

/* ---- Results ------------------------------------------------------------------------------------------- */

static hd_status save(const char *path, const hd_params *p, const float *g, bool weights, hd_err *err)
{
    hd_status st;
    hd_safetensors_writer *w = NULL;
    HD_TRY(hd_safetensors_writer_open(&w, path, err));
    for (int part = 0; part < (weights ? 2 : 1); part++)
        for (int i = 0; i < p->n; i++) {
            char name[160];
            int64_t dim[2] = {p->p[i].vector ? p->p[i].k : p->p[i].n, p->p[i].k};
            snprintf(name, sizeof name, "%s.%s", part ? "weight" : "grad", p->p[i].name);
            HD_TRY(hd_safetensors_put(w, name, HD_F32, p->p[i].vector ? 1 : 2, dim, err));
        }
    HD_TRY(hd_safetensors_begin(w, err));
    for (int part = 0; part < (weights ? 2 : 1); part++)
        for (int i = 0; i < p->n; i++)
            HD_TRY(hd_safetensors_write(w, (part ? p->w : g) + p->p[i].at,
                                        (size_t)(p->p[i].n * p->p[i].k) * sizeof *g, err));
    HD_TRY(hd_safetensors_commit(w, NULL, NULL, err));
fail:
    hd_safetensors_writer_close(w);
    return st;
}

static hd_status run(const char *dir, const char *batches, const char *out, opts *o, hd_err *err)
{
    hd_status st;
    json_t *j = NULL;
    hd_source *s = NULL;
    hd_model *m = NULL;
    batch *b = NULL;
    float *g = NULL;
    int rows = 1, n = 0;
    HD_TRY(read_json(&j, batches, err));
    const json_t *list = json_object_get(j, "batches");
    HD_TRY(hd_alloc_n(&b, json_array_size(list) + 1, sizeof *b, err));
    for (; n < (int)json_array_size(list); n++) {
        b[n] = batch_of(json_array_get(list, (size_t)n));
        rows = b[n].m.n_rows > rows ? b[n].m.n_rows : rows;
    }
    if (n == 0) {
        st = hd_fail(err, HD_FORMAT, "%s: no batches", batches);
        goto fail;
    }
    o->pass.mtp_weight = (float)json_number_value(json_object_get(j, "mtp_weight"));
    o->pass.balance_alpha = (float)json_number_value(json_object_get(j, "balance_alpha"));
    o->pass.zloss = (float)json_number_value(json_object_get(j, "zloss"));
    o->pass.distil_weight = (float)json_number_value(json_object_get(j, "distil_weight"));
    o->pass.temperature = (float)json_number_value(json_object_get(j, "temperature"));
    HD_TRY(hd_source_open(&s, dir, true, err));
    HD_TRY(hd_model_open_train(&m, s, o->precision, o->threads, rows, err));
    hd_params *p = hd_model_params(m);
    HD_TRY(hd_alloc_n(&g, (size_t)p->n_flat, sizeof *g, err));
    HD_TRY(train(m, b, n, o, g, err));
    if (o->val) HD_TRY(validate(m, o, err));
    HD_TRY(save(out, p, g, o->steps > 0, err));
fail:
    for (int i = 0; i < n; i++) batch_free(&b[i]);
    free(b);
    free(g);
    hd_model_close(m);
    hd_source_close(s);
    json_decref(j);
    return st;
}

static int usage(void)
{
    fprintf(stderr, "usage: train_probe MODELDIR BATCH.json OUT.safetensors [--steps N] [--optim adamw|muon] "
                    "[--lr X] [--clip X]\n"
                    "       [--weight-decay X] [--precision f32|bf16|fp8] [--threads N] [--recompute] [--wsd "
                    "WARMUP,DECAY] [--val FILE]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const char *const precisions[] = {"bf16", "f32", "fp8"};
    opts o = {.optim = hd_optim_defaults,
              .schedule = {.kind = HD_SCHED_CONSTANT, .lr = 1e-3f},
              .threads = 2,
              .precision = HD_TRAIN_F32};
    hd_err err = {0};
    o.optim.matrices = HD_OPT_ADAMW;
    if (argc < 4) return usage();
    for (int i = 4; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(a, "--recompute")) {
            o.pass.recompute = true;
            continue;
        }
        i++;
        if (!strcmp(a, "--steps")) o.steps = atoi(v);
        else if (!strcmp(a, "--optim")) o.optim.matrices = strcmp(v, "muon") ? HD_OPT_ADAMW : HD_OPT_MUON;
        else if (!strcmp(a, "--lr")) o.schedule.lr = strtof(v, NULL);
        else if (!strcmp(a, "--clip")) o.clip = strtod(v, NULL);
        else if (!strcmp(a, "--weight-decay")) o.optim.weight_decay = strtof(v, NULL);
        else if (!strcmp(a, "--threads")) o.threads = atoi(v);
        else if (!strcmp(a, "--val")) o.val = v;
        else if (!strcmp(a, "--wsd")) {
            char *end;
            o.schedule.kind = HD_SCHED_WSD;
            o.schedule.warmup = strtoll(v, &end, 10);
            o.schedule.decay = *end ? strtoll(end + 1, NULL, 10) : 0;
        } else if (!strcmp(a, "--precision")) {
            for (int k = 0; k < 3; k++)
                if (!strcmp(v, precisions[k])) o.precision = (hd_train_precision)k;
        } else return usage();
    }
    o.schedule.steps = o.steps;
    if (run(argv[1], argv[2], argv[3], &o, &err) == HD_OK) return 0;
    fprintf(stderr, "train_probe: %s\n", err.msg);
    return 1;
}
