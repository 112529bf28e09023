/* Checkpoints: the same bits back, also by ranks; rotation; damage, a full disk and kill -9 leave a whole
 * one to go on from. */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "model/train_pass.h"
#include "test.h"
#include "train/checkpoint_dir.h"
#include "train/zero.h"

static hd_err err;
static char dir[64], first[128];

/* ---- A model in training ---- */

typedef struct {
    hd_source *src;
    hd_model *m;
    hd_params *p;
    hd_optim *o;
} run;

static void run_open(run *r, const char *path, const hd_optim_config *c, const int *owner, int rank)
{
    *r = (run){0};
    CHECK_OK(hd_source_open(&r->src, path, true, &err));
    CHECK_OK(hd_model_open_train(&r->m, r->src, HD_TRAIN_F32, 1, 16, &err));
    if (!r->m) exit(1);
    r->p = hd_model_params(r->m);
    CHECK_OK(hd_optim_open(&r->o, r->p, c, owner, rank, &err));
}

static void run_close(run *r)
{
    hd_optim_close(r->o);
    hd_model_close(r->m);
    hd_source_close(r->src);
}

/* One update with gradients that depend on the step alone. */
static void advance(run *r, int64_t step)
{
    hd_rng rng;
    hd_rng_seed(&rng, (uint64_t)step, 5);
    for (int i = 0; i < r->p->n; i++)
        for (int64_t k = 0; k < r->p->p[i].n * r->p->p[i].k; k++) r->p->g[r->p->p[i].at + k] = hd_rng_normal(&rng) * 0.01f;
    hd_optim_step(r->o, hd_model_dev(r->m), r->p->w, r->p->g, 1e-2f, 1, step);
}

static bool same_state(const run *a, const run *b)
{
    int differ = 0;
    for (int i = 0; i < a->p->n; i++)
        differ += memcmp(a->p->w + a->p->p[i].at, b->p->w + b->p->p[i].at, (size_t)(a->p->p[i].n * a->p->p[i].k) * 4) != 0;
    differ += hd_optim_n_state(a->o) != hd_optim_n_state(b->o);
    for (int i = 0; i < hd_optim_n_state(a->o) && !differ; i++) {
        hd_optim_state x, y;
        hd_optim_state_at(a->o, i, &x);
        hd_optim_state_at(b->o, i, &y);
        differ += strcmp(x.name, y.name) != 0 || x.n != y.n || memcmp(x.data, y.data, (size_t)x.n * (x.type == HD_F32 ? 4 : 2)) != 0;
    }
    return differ == 0;
}

static json_t *config(void)
{
    return json_pack("{s:[s],s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "architectures",
                     "DeepseekV3ForCausalLM", "vocab_size", 96, "hidden_size", 32, "intermediate_size", 48, "num_hidden_layers", 2,
                     "num_attention_heads", 2, "num_key_value_heads", 2, "q_lora_rank", 16, "kv_lora_rank", 16, "qk_nope_head_dim",
                     16, "qk_rope_head_dim", 8, "v_head_dim", 16, "n_routed_experts", 4, "num_experts_per_tok", 2,
                     "moe_intermediate_size", 16, "first_k_dense_replace", 1, "n_group", 1, "topk_group", 1,
                     "num_nextn_predict_layers", 1);
}

static hd_run_state state_at(int64_t step, void *extra)
{
    return (hd_run_state){.step = step, .tokens = step * 1000, .next_index = UINT64_MAX - (uint64_t)step, .seconds = 0.1 * (double)step,
                          .extra = extra, .n_extra = 7};
}

static hd_status save(run *r, const char *where, int64_t step, int keep)
{
    uint8_t extra[7] = {0, 255, 1, 128, 9, (uint8_t)step, 77};
    hd_run_state s = state_at(step, extra);
    return hd_checkpoint_write(where, r->m, r->p, r->o, NULL, &s, keep, &err);
}

static int64_t newest(const char *where)
{
    char path[1024];
    const char *name;
    CHECK_OK(hd_checkpoint_find(path, where, &err));
    name = strrchr(path, '/');
    return name ? strtoll(name + 6, NULL, 10) : -1;
}

/* Folders and files of a run whose name holds `part`. */
static int count(const char *where, const char *part)
{
    char command[300];
    int n = -1;
    snprintf(command, sizeof command, "ls -d %s/*%s* 2>/dev/null | wc -l", where, part);
    FILE *f = popen(command, "r");
    if (f && fscanf(f, "%d", &n) != 1) n = -1;
    if (f) pclose(f);
    return n;
}

/* ---- The same bits ---- */

static void round_trip(const hd_optim_config *c)
{
    char where[128], path[1024];
    uint8_t extra[7] = {0}, less[6];
    run a, b;
    snprintf(where, sizeof where, "%s/round", dir);
    CHECK(newest(where) == -1); // no folder yet
    run_open(&a, first, c, NULL, 0);
    for (int64_t i = 1; i <= 3; i++) advance(&a, i);
    CHECK_OK(save(&a, where, 3, 2));
    CHECK_OK(hd_checkpoint_find(path, where, &err));
    run_open(&b, path, c, NULL, 0);
    hd_run_state s = {.extra = extra, .n_extra = 7};
    CHECK_OK(hd_checkpoint_read(path, b.p, b.o, &s, &err));
    CHECK(s.step == 3 && s.tokens == 3000 && s.next_index == UINT64_MAX - 3 && s.seconds == 0.1 * 3 && extra[1] == 255 && extra[6] == 77);
    CHECK(same_state(&a, &b));
    for (int64_t i = 4; i <= 6; i++) advance(&a, i), advance(&b, i);
    CHECK(same_state(&a, &b));
    /* The MTP layer stands under its published names; what it shares is not written twice. */
    CHECK(hd_source_find(b.src, "model.layers.2.eh_proj.weight") && hd_source_find(b.src, "model.layers.2.shared_head.norm.weight") &&
          hd_source_find(b.src, "model.layers.2.mlp.experts.3.down_proj.weight") && !hd_source_find(b.src, "model.layers.2.embed_tokens.weight"));
    s.extra = less, s.n_extra = 6;
    CHECK(hd_checkpoint_read(path, b.p, b.o, &s, &err) == HD_FORMAT && strstr(err.msg, "extra"), "%s", err.msg);
    run_close(&b);

    hd_optim_config other = *c;
    other.matrices = c->matrices == HD_OPT_MUON ? HD_OPT_ADAMW : HD_OPT_MUON;
    other.moments_bf16 = !c->moments_bf16;
    run_open(&b, path, &other, NULL, 0);
    s.extra = extra, s.n_extra = 7;
    CHECK(hd_checkpoint_read(path, b.p, b.o, &s, &err) == HD_FORMAT && strstr(err.msg, "exp_avg"), "%s", err.msg);
    CHECK_OK(hd_checkpoint_read(path, b.p, NULL, &s, &err));
    run_close(&b);
    run_close(&a);
    CHECK_OK(hd_folder_remove(where, &err));
}

static void by_ranks(void)
{
    char where[128], path[1024];
    uint8_t extra[7] = {0};
    run whole, rank[2];
    hd_zero z = {0};
    hd_newfolder f = {0};
    hd_run_state s = state_at(2, extra);
    snprintf(where, sizeof where, "%s/ranks", dir);
    run_open(&whole, first, &hd_optim_defaults, NULL, 0);
    CHECK_OK(hd_zero_open(&z, whole.p, 2, &err));
    for (int r = 0; r < 2; r++) run_open(&rank[r], first, &hd_optim_defaults, z.owner, r);
    for (int64_t i = 1; i <= 2; i++) {
        advance(&whole, i);
        for (int r = 0; r < 2; r++) advance(&rank[r], i);
        for (int k = 0; k < whole.p->n; k++) { // the owners' weights to all
            const hd_param *p = &whole.p->p[k];
            memcpy(rank[!z.owner[k]].p->w + p->at, rank[z.owner[k]].p->w + p->at, (size_t)(p->n * p->k) * 4);
        }
    }
    CHECK_OK(hd_ckpt_begin(&f, where, &s, &err));
    for (int r = 1; r >= 0; r--) CHECK_OK(hd_ckpt_part(f.tmp, r, NULL, rank[r].m, rank[r].p, rank[r].o, NULL, &err));
    CHECK_OK(hd_ckpt_finish(&f, where, &s, 1, &err));
    CHECK_OK(hd_checkpoint_find(path, where, &err));
    run back; // with one rank
    run_open(&back, path, &hd_optim_defaults, NULL, 0);
    CHECK_OK(hd_checkpoint_read(path, back.p, back.o, &s, &err));
    CHECK(same_state(&whole, &back));
    run_close(&back);
    run_open(&back, path, &hd_optim_defaults, z.owner, 1); // with two
    CHECK_OK(hd_checkpoint_read(path, back.p, back.o, &s, &err));
    CHECK(same_state(&rank[1], &back));
    run_close(&back);

    hd_comm *comm = NULL; // a process alone is a rank of one
    CHECK_OK(hd_comm_open(&comm, &err));
    s.step = 3;
    CHECK_OK(hd_checkpoint_write_ranks(comm, where, whole.m, whole.p, whole.o, NULL, &s, 1, &err));
    CHECK(newest(where) == 3 && count(where, "step-") == 1);
    hd_comm_close(comm);
    for (int r = 0; r < 2; r++) run_close(&rank[r]);
    run_close(&whole);
    hd_zero_close(&z);
}

/* ---- Which one counts ---- */

static void rotation(run *r)
{
    char where[128], path[256];
    snprintf(where, sizeof where, "%s/rotate", dir);
    for (int64_t i = 1; i <= 5; i++) CHECK_OK(save(r, where, i * 10, 2));
    CHECK(newest(where) == 50 && count(where, "step-") == 2, "%d", count(where, "step-"));
    snprintf(path, sizeof path, "%s/step-00000060.part-99999999", where); // of a process that died
    CHECK_OK(hd_folder_make(path, &err));
    snprintf(path, sizeof path, "%s/step-note", where); // not ours
    CHECK_OK(hd_folder_make(path, &err));
    CHECK(newest(where) == 50);
    CHECK_OK(save(r, where, 50, 2)); // again: replaces its own
    CHECK(newest(where) == 50 && count(where, "part-") == 0 && count(where, "step-0") == 2 && count(where, "step-note") == 1);
    CHECK_OK(save(r, where, 40, 1)); // a run that went back: newer ones stay, older ones go
    CHECK(count(where, "step-00000050") == 1 && count(where, "step-00000040") == 1 && count(where, "step-0") == 2);
    CHECK_OK(save(r, where, 70, 0));
    CHECK(count(where, "step-0") == 3);
}

/* Change a file of the newest checkpoint; the one before must be found, and say so no
 * louder than a warning. */
static void damage(run *r)
{
    static const char *const files[] = {"model.safetensors", "trainer.safetensors", "config.json", "generation_config.json", "trainer.json"};
    char where[128], file[256];
    snprintf(where, sizeof where, "%s/damage", dir);
    CHECK_OK(save(r, where, 1, 3));
    CHECK(freopen("/dev/null", "w", stderr) != NULL); // warnings
    for (int i = 0; i < 5; i++)
        for (int how = 0; how < 3; how++) {
            struct stat sb;
            CHECK_OK(save(r, where, 2, 3));
            CHECK(newest(where) == 2);
            snprintf(file, sizeof file, "%s/step-00000002/%s", where, files[i]);
            CHECK(stat(file, &sb) == 0);
            int fd = open(file, O_RDWR);
            if (how == 0) CHECK(truncate(file, sb.st_size / 2) == 0);
            else if (how == 1) CHECK(unlink(file) == 0);
            else {
                char c;
                off_t at = sb.st_size * 2 / 3;
                CHECK(pread(fd, &c, 1, at) == 1);
                c ^= 4;
                CHECK(pwrite(fd, &c, 1, at) == 1);
            }
            close(fd);
            CHECK(newest(where) == 1, "%s, %d", files[i], how);
            uint8_t extra[7];
            char path[256];
            hd_run_state s = {.extra = extra, .n_extra = 7};
            snprintf(path, sizeof path, "%s/step-00000002", where);
            CHECK(hd_checkpoint_read(path, r->p, NULL, &s, &err) != HD_OK, "%s, %d", files[i], how);
        }
    CHECK_OK(save(r, where, 2, 3)); // over the damaged one
    CHECK(newest(where) == 2);
}

/* ---- No room, no time ---- */

static void full_disk(run *r)
{
    char where[128];
    struct rlimit old, small = {4096, RLIM_INFINITY};
    snprintf(where, sizeof where, "%s/full", dir);
    CHECK_OK(save(r, where, 1, 1));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (int i = 0; i < 6; i++) { // in other files at other sizes
        small.rlim_cur = (rlim_t)(600 << (2 * i));
        small.rlim_max = old.rlim_max;
        setrlimit(RLIMIT_FSIZE, &small);
        hd_status st = save(r, where, 2, 1);
        setrlimit(RLIMIT_FSIZE, &old);
        if (st == HD_OK) break;
        CHECK(st == HD_IO && strstr(err.msg, "write"), "%s", err.msg);
        CHECK(newest(where) == 1 && count(where, "part-") == 0 && count(where, "step-") == 1);
        CHECK(i < 5);
    }
    CHECK(newest(where) == 2 && count(where, "step-") == 1); // with room enough it goes on
}

static void killed(run *r)
{
    char where[128];
    int64_t last = 0, seen = 0;
    uint32_t most_us = 40000; // longer where the machine has others to serve: some children must get somewhere
    hd_rng rng;
    snprintf(where, sizeof where, "%s/killed", dir);
    hd_rng_seed(&rng, 3, 3);
    CHECK_OK(save(r, where, 1, 1));
    for (int i = 0; i < 25; i++) {
        int64_t from = last = newest(where);
        CHECK(last >= 1);
        pid_t child = fork();
        if (child == 0) {
            for (int64_t step = from + 1;; step++)
                if (save(r, where, step, 1) != HD_OK) _exit(1);
        }
        usleep(1000 + hd_rng_u32(&rng) % most_us);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        CHECK(WIFSIGNALED(status), "the child ended by itself");
        CHECK(newest(where) >= last, "%lld after %lld", (long long)newest(where), (long long)last);
        if (newest(where) > last) seen++;
        else if (most_us < 900000) most_us += most_us / 2;
    }
    CHECK(seen > 0);
    CHECK_OK(save(r, where, newest(where) + 1, 1));
    CHECK(count(where, "part-") == 0);
}

/* For tests/oracle/test_export_full.py: the weights of a source as a run would begin with, written
 * as its checkpoint. */
static int write_checkpoint(const char *source, const char *to)
{
    run r;
    run_open(&r, source, &hd_optim_defaults, NULL, 0);
    CHECK_OK(hd_checkpoint_write(to, r.m, r.p, NULL, source, NULL, 0, &err));
    run_close(&r);
    return hd_test_end();
}

int main(int argc, char **argv)
{
    run r;
    if (argc == 3) return write_checkpoint(argv[1], argv[2]);
    snprintf(dir, sizeof dir, "/tmp/hadal-checkpoint-%ld", (long)getpid());
    snprintf(first, sizeof first, "%s/first", dir);
    CHECK_OK(hd_folder_make(dir, &err));
    json_t *j = config();
    CHECK_OK(hd_model_init(first, j, 1, NULL, &err));
    json_decref(j);
    hd_optim_config adamw = hd_optim_defaults, half = hd_optim_defaults;
    adamw.matrices = HD_OPT_ADAMW;
    half.matrices = HD_OPT_ADAMW;
    half.moments_bf16 = true;
    round_trip(&hd_optim_defaults);
    round_trip(&adamw);
    round_trip(&half);
    by_ranks();
    run_open(&r, first, &hd_optim_defaults, NULL, 0);
    advance(&r, 1);
    rotation(&r);
    full_disk(&r);
    killed(&r);
    damage(&r);
    run_close(&r);
    CHECK_OK(hd_folder_remove(dir, &err));
    return hd_test_end();
}
