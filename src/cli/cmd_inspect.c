/* hadal inspect: what a model is made of and what running it would take, without reading a weight. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/inspect.h"
#include "cli/opts.h"
#include "model/chat.h"
#include "model/tokenizer.h"

/* ---- Values of GGUF keys ---- */

const char *hd_gguf_type_name(hd_gguf_type t)
{
    static const char *const name[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                       "bool", "string", "array", "u64", "i64", "f64"};
    return (unsigned)t < sizeof name / sizeof name[0] ? name[t] : "?";
}

bool hd_inspect_value(const hd_gguf_kv *kv, uint64_t i, size_t *pos, hd_value *v)
{
    hd_gguf_kv one = *kv; // a scalar reads like an array of one
    if (kv->type != HD_GGUF_ARR) one.elem = kv->type, one.type = HD_GGUF_ARR, one.n = 1;
    if (i >= one.n) return false;
    *v = (hd_value){.kind = HD_VALUE_STR};
    switch (one.elem) {
    case HD_GGUF_STR: return hd_gguf_arr_str(&one, pos, &v->s);
    case HD_GGUF_BOOL: v->kind = HD_VALUE_BOOL; return v->i = one.data[i] != 0, true;
    case HD_GGUF_F32:
    case HD_GGUF_F64: v->kind = HD_VALUE_FLOAT; return hd_gguf_arr_f64(&one, i, &v->f);
    default:
        v->kind = HD_VALUE_INT;
        if (hd_gguf_arr_i64(&one, i, &v->i)) return true;
        v->kind = HD_VALUE_FLOAT; // above 2^63
        uint64_t u = 0;
        memcpy(&u, one.data + 8 * i, 8);
        v->f = (double)u;
        return true;
    }
}

/* ---- Gathering ---- */

static void name_tokenizer(hd_facts *f)
{
    const hd_gguf *g = hd_source_gguf(f->source);
    hd_gguf_str model = {"", 0}, pre = {"", 0};
    if (g) {
        hd_gguf_string(g, "tokenizer.ggml.model", &model);
        hd_gguf_string(g, "tokenizer.ggml.pre", &pre);
        int n = (int)(model.n < 40 ? model.n : 40), m = (int)(pre.n < 40 ? pre.n : 40);
        snprintf(f->tokenizer, sizeof f->tokenizer, "%.*s%s%.*s", n, model.p, m ? ", split as " : "", m,
                 pre.p);
        return;
    }
    const json_t *j = json_object_get(hd_source_json(f->source, "tokenizer.json"), "model");
    const char *type = json_string_value(json_object_get(j, "type"));
    snprintf(f->tokenizer, sizeof f->tokenizer, "%.40s of tokenizer.json", type ? type : "BPE");
}

/* A model without a tokenizer that can be used is still worth listing: what is wrong with
 * it becomes a line. */
static hd_status gather_tokenizer(hd_facts *f, hd_err *err)
{
    hd_tokenizer *t = NULL;
    hd_status st = hd_tokenizer_open(&t, f->source, &f->tokenizer_err);
    if (st == HD_OK) {
        name_tokenizer(f);
        f->n_tokens = hd_tokenizer_n_vocab(t);
        const hd_chat_format *c;
        st = hd_chat_pick(&c, f->source, t, NULL, &f->chat_err);
        if (st == HD_OK) f->chat = hd_chat_name(c); // of a static table
        if (st == HD_NOMEM && err) *err = f->chat_err;
    } else if (st == HD_NOMEM && err) {
        *err = f->tokenizer_err;
    }
    hd_tokenizer_close(t);
    return st == HD_NOMEM ? st : HD_OK;
}

static hd_status gather_plan(hd_facts *f, hd_err *err)
{
    const char *why = hd_source_why_not(f->source);
    if (why || hd_source_n_tensors(f->source) == 0) {
        hd_fail(&f->plan_err, HD_UNSUPPORTED, "%s", why ? "the model cannot be run" : "there are no weights");
        return HD_OK;
    }
    hd_status st = hd_model_plan(&f->plan, f->source, HD_CACHE_BF16, &f->plan_err);
    f->has_plan = st == HD_OK;
    if (st == HD_NOMEM && err) *err = f->plan_err;
    return st == HD_NOMEM ? st : HD_OK;
}

static void count_weights(hd_facts *f)
{
    for (int64_t i = 0; i < hd_source_n_tensors(f->source); i++) {
        const hd_tensor_info *t = hd_source_tensor(f->source, i);
        const hd_format *format = hd_format_get((int)t->type);
        f->n_weights += t->bytes / (size_t)format->bytes * (size_t)format->block;
    }
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    bool json = false;
    hd_inspect_opts o = {0};
    int n = 0;
    const hd_opt opts[] = {
        {"tensors", 't', HD_OPT_FLAG, &o.tensors, 0, 0},
        {"metadata", 'm', HD_OPT_FLAG, &o.metadata, 0, 0},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    hd_source *s = NULL;
    hd_facts *f = NULL;
    char *path = NULL;
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1) return hd_fail(err, HD_USAGE, "inspect: one model is needed: hadal inspect MODEL");
    HD_TRY(hd_alloc(&f, sizeof *f, err));
    HD_TRY(hd_hub_resolve(&path, argv[1], err));
    HD_TRY(hd_source_open_list(&s, path, err));
    f->source = s;
    count_weights(f);
    HD_TRY(gather_tokenizer(f, err));
    HD_TRY(gather_plan(f, err));
    if (json) hd_inspect_json(f);
    else HD_TRY(hd_inspect_text(f, &o, err));
fail:
    hd_source_close(s);
    free(path);
    free(f);
    return st;
}

const hd_command hd_cmd_inspect = {
    .verb = "inspect",
    .summary = "show a model's configuration, tensors and memory plan",
    .help = "usage: hadal inspect MODEL [options]\n\n"
            "MODEL is a Hugging Face directory or a GGUF file (any part of a split one).  No weight is read, "
            "so that a\n"
            "model of any size opens at once.  Models that cannot be run are listed too, with the reason.\n\n"
            "  -t, --tensors          a line for each tensor, not for each kind of them\n"
            "  -m, --metadata         every key of a GGUF file\n"
            "      --json             one JSON object with all of it\n\n"
            "examples:\n"
            "  hadal inspect DeepSeek-R1-Distill-Qwen-1.5B\n"
            "  hadal inspect model.gguf --tensors --metadata\n"
            "  hadal inspect DeepSeek-R1-Q4_K_M-00001-of-00009.gguf --json | jq .plan\n",
    .run = run,
};
