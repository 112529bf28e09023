/* Opening a model: every weight that is missing, has another shape or another format is an error that names
 * it, and a model that opens holds what its plan said. */
#include "model/model.h"
#include "test.h"
#include "tiny.h"

static hd_err err;
static char path[64];

static hd_status open_tiny(const tiny_opts *o, int pack)
{
    hd_source *s = NULL;
    hd_model *m = NULL;
    hd_model_opts mo = {.n_threads = 1, .pack = pack, .quiet = true};
    CHECK_OK(tiny_write(path, o, &err));
    hd_status st = hd_source_open(&s, path, true, &err);
    if (st == HD_OK) st = hd_model_open(&m, s, &mo, &err);
    hd_model_close(m);
    hd_source_close(s);
    return st;
}

/* Does the configuration, or the model itself, get along without it? */
static bool may_be_absent(const hd_slot *s)
{
    return s->kind == HD_SLOT_HEAD || s->kind == HD_SLOT_BIAS || s->flags & HD_SLOT_OPTIONAL;
}

/* The MTP layer is told by this tensor alone. */
static bool tells_mtp(const char *name) { return strstr(name, "nextn.eh_proj") != NULL; }

static void damage(const tiny_opts *model, const hd_slot *s, const char *name)
{
    tiny_opts o = *model;
    o.leave_out = name;
    hd_status st = open_tiny(&o, 1);
    if (may_be_absent(s) || tells_mtp(name)) CHECK(st == HD_OK, "without %s: %s", name, err.msg);
    else CHECK(st == HD_FORMAT, "without %s: %d", name, (int)st);
    o.leave_out = NULL;
    o.one_more = name;
    st = open_tiny(&o, 1);
    CHECK(st == HD_FORMAT || st == HD_UNSUPPORTED, "a row more in %s: %d", name, (int)st);
    o.one_more = NULL;
    o.as_bytes = name;
    st = open_tiny(&o, 0);
    CHECK(st == HD_UNSUPPORTED || st == HD_FORMAT, "bytes as %s: %d", name, (int)st);
}

/* Every slot, in the last layer that has it. */
static void test_damage(const tiny_opts *o)
{
    const hd_arch *a;
    hd_config c = tiny_config(o);
    tiny_writer t = {.c = &c, .o = o};
    CHECK_OK(open_tiny(o, 1));
    CHECK_OK(hd_arch_find(&a, &c, &err));
    for (int i = 0; i < a->n_slots; i++)
        for (int il = hd_slot_layers(&a->slots[i], &c) - 1; il >= 0; il--) {
            char name[128];
            if (!tiny_has(&t, &a->slots[i], il)) continue;
            if (a->slots[i].kind == HD_SLOT_EMBED) break; // its rows are the vocabulary
            hd_slot_name(name, a->slots[i].gguf, il, 0);
            damage(o, &a->slots[i], name);
            break;
        }
}

/* An arena for panels, another for a pass; the plan is made before anything is read. */
static void test_plan(const tiny_opts *o)
{
    hd_source *s;
    hd_plan p;
    CHECK_OK(tiny_write(path, o, &err));
    CHECK_OK(hd_source_open(&s, path, true, &err));
    CHECK_OK(hd_model_plan(&p, s, HD_CACHE_BF16, &err));
    CHECK(p.file_bytes == hd_source_weight_bytes(s));
    CHECK(p.packed_bytes > p.file_bytes / 3 && p.packed_bytes < 2 * p.file_bytes, "%llu of %llu",
          (unsigned long long)p.packed_bytes, (unsigned long long)p.file_bytes);
    CHECK(p.cache_bytes_per_tok == hd_cache_tok_bytes(hd_source_config(s), HD_CACHE_BF16));
    hd_source_close(s);
}

int main(void)
{
    static const tiny_opts models[] = {
        {.kind = TINY_LLAMA, .type = HD_Q8_0}, {.kind = TINY_QWEN2, .type = HD_Q4_0},
        {.kind = TINY_QWEN3, .type = HD_F16},  {.kind = TINY_V2, .type = HD_Q8_0},
        {.kind = TINY_V3, .type = HD_Q8_0},    {.kind = TINY_V3, .type = HD_Q8_0, .split_kv_b = true},
    };
    snprintf(path, sizeof path, "/tmp/hadal-load-%d.gguf", (int)getpid());
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        test_plan(&models[i]);
        test_damage(&models[i]);
    }
    remove(path);
    return hd_test_end();
}
