/* hadal's side of bench/train: a training step on random ids, as the trainer makes it (pass, norm, clip,
 * update, panels).
 *
 *   bench_train_step CONFIG.json SEQUENCES ROWS [--precision bf16|f32] [--micro N] [--threads N]
 *
 * Lines on stdin: `go N` runs N steps and answers one line of JSON, as bench/train_torch.py does. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rng.h"
#include "model/json.h"
#include "model/train_pass.h"
#include "ops/back.h"
#include "train/checkpoint.h"
#include "train/recipe.h"

enum { BATCHES = 8 };

typedef struct {
    hd_source *s;
    hd_model *m;
    hd_optim *optim;
    int seqs, rows, n;
    int micro; // sequences of a pass: a step's gradients come from seqs / micro passes
    int32_t *tok, *target;
    int *len;
    int64_t step;
} bench;

static hd_status open_bench(bench *b, const char *config, hd_train_precision precision, int threads,
                            hd_err *err)
{
    hd_status st;
    char dir[] = "/tmp/hadal-train-step-XXXXXX", path[64], rm[80];
    json_error_t e;
    json_t *j = json_load_file(config, 0, &e);
    hd_optim_config c = hd_optim_defaults;
    hd_rng r;
    if (!j) return hd_fail(err, HD_FORMAT, "%s: line %d: %s", config, e.line, e.text);
    if (!mkdtemp(dir)) {
        st = hd_fail(err, HD_IO, "%s: cannot be made", dir);
        goto fail;
    }
    snprintf(path, sizeof path, "%s/model", dir);
    snprintf(rm, sizeof rm, "rm -rf %s", dir);
    st = hd_model_init(path, j, 1, NULL, err);
    if (st == HD_OK) st = hd_source_open(&b->s, path, true, err);
    b->n = b->seqs * b->rows;
    if (b->micro == 0) b->micro = hd_recipe_micro(b->seqs, b->rows, !json_object_get(j, "n_routed_experts"));
    if (st == HD_OK) st = hd_model_open_train(&b->m, b->s, precision, threads, b->micro * b->rows, err);
    if (system(rm) != 0) fprintf(stderr, "%s: not removed\n", dir); // what is mapped stays
    if (st != HD_OK) goto fail;
    c.matrices = HD_OPT_ADAMW;
    HD_TRY(hd_optim_open(&b->optim, hd_model_params(b->m), &c, NULL, 0, err));
    HD_TRY(hd_alloc_n(&b->tok, (size_t)b->n * BATCHES, sizeof *b->tok, err));
    HD_TRY(hd_alloc_n(&b->target, (size_t)b->n * BATCHES, sizeof *b->target, err));
    HD_TRY(hd_alloc_n(&b->len, (size_t)b->seqs, sizeof *b->len, err));
    hd_rng_seed(&r, 1, 1);
    int64_t V = hd_model_config(b->m)->n_vocab;
    for (int i = 0; i < b->seqs; i++) b->len[i] = b->rows;
    for (int i = 0; i < b->n * BATCHES; i++) b->tok[i] = (int32_t)(hd_rng_u32(&r) % (uint32_t)V);
    for (int i = 0; i < b->n * BATCHES; i++) b->target[i] = b->tok[(i + 1) % (b->n * BATCHES)];
fail:
    json_decref(j);
    return st;
}

static hd_status one_step(bench *b, double *loss, hd_err *err)
{
    hd_params *p = hd_model_params(b->m);
    hd_dev *d = hd_model_dev(b->m);
    int64_t at = b->step % BATCHES * b->n;
    hd_pass_opts o = {.loss_scale = 1.0f / (float)b->n, .backward = true};
    hd_pass_result r = {0};
    memset(p->g, 0, (size_t)p->n_flat * sizeof *p->g);
    const int rows = b->micro * b->rows, most = hd_train_most_passes(b->m);
    for (int i = 0, n = 0; i < b->n; n = 0) {
        hd_micro in[HD_MOST_PASSES];
        for (; n < most && i < b->n; n++, i += rows)
            in[n] = (hd_micro){.n_rows = rows, .n_docs = b->micro, .tok = b->tok + at + i, .target = b->target + at + i, .len = b->len};
        hd_status st = hd_train_passes(b->m, in, n, &o, &r, err);
        if (st != HD_OK) return st;
    }
    hd_train_sum(b->m);
    double norm = sqrt(hd_flat_sumsq(d, p->g, p->n_flat));
    hd_optim_step(b->optim, d, p->w, p->g, 1e-3f, hd_clip_scale(norm, 1), ++b->step);
    hd_params_refresh(b->m);
    *loss = r.loss / (double)r.n_target;
    return HD_OK;
}

static hd_status go(bench *b, int n, hd_err *err)
{
    double loss = 0;
    struct rusage u;
    double cpu[256];
    n = n < 1 ? 1 : n > 256 ? 256 : n;
    printf("{\"seconds\": [");
    for (int i = 0; i < n; i++) {
        clock_t c0 = clock();
        double t = hd_now_s();
        hd_status st = one_step(b, &loss, err);
        if (st != HD_OK) return st;
        printf("%s%.6f", i ? ", " : "", hd_now_s() - t);
        cpu[i] = (double)(clock() - c0) / CLOCKS_PER_SEC;
    }
    printf("], \"processor\": [");
    for (int i = 0; i < n; i++) printf("%s%.6f", i ? ", " : "", cpu[i]);
    getrusage(RUSAGE_SELF, &u);
    printf("], \"loss\": %.6f, \"rows\": %d, \"peak_bytes\": %lld, \"weights\": %lld}\n", loss, b->n,
           (long long)u.ru_maxrss * 1024, (long long)hd_model_params(b->m)->n_weights);
    fflush(stdout);
    return HD_OK;
}

int main(int argc, char **argv)
{
    hd_err err = {0};
    bench b = {0};
    hd_train_precision precision = HD_TRAIN_BF16;
    int threads = 2;
    char line[64];
    if (argc < 4) {
        fprintf(stderr,
                "usage: bench_train_step CONFIG.json SEQUENCES ROWS [--precision bf16|f32] [--micro N] [--threads N]\n");
        return 2;
    }
    b.seqs = atoi(argv[2]);
    b.rows = atoi(argv[3]);
    for (int i = 4; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--micro")) b.micro = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--threads")) threads = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--precision"))
            precision = strcmp(argv[i + 1], "f32") ? HD_TRAIN_BF16 : HD_TRAIN_F32;
    }
    if (b.seqs < 1 || b.rows < 1 || b.micro < 0 || (b.micro && b.seqs % b.micro)) {
        fprintf(stderr, "train_step: %d sequences do not divide into passes of %d\n", b.seqs, b.micro);
        return 2;
    }
    hd_status st = open_bench(&b, argv[1], precision, threads, &err);
    while (st == HD_OK && fgets(line, sizeof line, stdin))
        if (!strncmp(line, "go ", 3)) st = go(&b, atoi(line + 3), &err);
    if (st != HD_OK) fprintf(stderr, "train_step: %s\n", err.msg);
    hd_optim_close(b.optim);
    hd_model_close(b.m);
    hd_source_close(b.s);
    free(b.tok);
    free(b.target);
    free(b.len);
    return st != HD_OK;
}
