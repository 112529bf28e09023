/* hadal export: a model out of hadal's hands, as one GGUF file for llama.cpp and ollama (model/quantize.h) or
 * as a Hugging Face directory (model/export_dir.h).  The name says which: *.gguf is a file. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/load.h"
#include "cli/opts.h"
#include "model/export.h"
#include "model/export_dir.h"
#include "model/json.h"
#include "model/quantize.h"

typedef struct {
    const char *in, *out, *type;
    int64_t threads;
    bool json;
} options;

static bool is_file_name(const char *out)
{
    size_t n = strlen(out);
    return n > 5 && !strcmp(out + n - 5, ".gguf");
}

static hd_status print(const options *o, const char *form, int64_t tensors, int64_t weights, uint64_t bytes, double seconds, hd_err *err)
{
    if (o->json) {
        json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:f}", "path", o->out, "form", form, "type", o->type, "tensors",
                              (json_int_t)tensors, "weights", (json_int_t)weights, "bytes", (json_int_t)bytes, "seconds", seconds);
        if (!j) return hd_fail(err, HD_NOMEM, "export: report: no memory, or a name that JSON cannot hold");
        return hd_json_print_take(j, JSON_PRESERVE_ORDER, "export: report", err);
    }
    printf("%s: %s, %s, %.1f M weights in %lld tensors, %.2f MB, %.1f s\n", o->out, form, o->type, (double)weights / 1e6,
           (long long)tensors, (double)bytes / 1e6, seconds);
    return HD_OK;
}

static hd_status to_file(const options *o, const hd_source *s, hd_err *err)
{
    hd_quantize_report r;
    hd_quantize_opts q = {.mix = hd_quant_mix_named(o->type), .n_threads = (int)o->threads, .stop = &hd_interrupted};
    if (!q.mix) return hd_fail(err, HD_USAGE, "--type %.40s: not known: hadal quantize --help lists the formats of GGUF", o->type);
    if (!hd_source_config(s)) return hd_fail(err, HD_UNSUPPORTED, "export: %s: holds no model, only a tokenizer", o->in);
    hd_status st = hd_export_fits_llama_cpp(hd_source_config(s), o->in, err);
    if (st == HD_OK) st = hd_quantize(o->out, s, &q, &r, err);
    return st == HD_OK ? print(o, "GGUF", r.n_tensors, r.n_weights, r.out_bytes, r.seconds, err) : st;
}

static hd_status to_folder(const options *o, const hd_source *s, hd_err *err)
{
    static const struct {
        const char *name;
        hd_type type;
    } types[] = {{"f32", HD_F32}, {"bf16", HD_BF16}, {"f16", HD_F16}};
    hd_export_dir_report r;
    hd_export_dir_opts d = {.stop = &hd_interrupted};
    int i = 0;
    while (i < 3 && strcmp(types[i].name, o->type) != 0) i++;
    if (i == 3)
        return hd_fail(err, HD_USAGE, "--type %.40s: a directory holds f32, bf16 or f16; name a file *.gguf for smaller formats",
                       o->type);
    d.type = types[i].type;
    hd_status st = hd_export_dir(o->out, s, &d, &r, err);
    return st == HD_OK ? print(o, "Hugging Face directory", r.n_tensors, r.n_weights, r.bytes, r.seconds, err) : st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    options o = {.type = "bf16"};
    hd_source *s = NULL;
    int n = 0;
    const hd_opt opts[] = {
        {"output", 'o', HD_OPT_STR, &o.out, 0, 0},
        {"type", 't', HD_OPT_STR, &o.type, 0, 0},
        {"threads", 0, HD_OPT_INT, &o.threads, 1, 1024},
        {"json", 0, HD_OPT_FLAG, &o.json, 0, 0},
    };
    hd_status st = hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err);
    if (st != HD_OK) return st;
    if (n != 1 || !o.out) return hd_fail(err, HD_USAGE, "export: a model and -o are needed: hadal export MODEL -o FILE.gguf|DIR");
    o.in = argv[1];
    HD_TRY(hd_hub_open_source(&s, o.in, true, err));
    hd_watch_signals();
    HD_TRY(is_file_name(o.out) ? to_file(&o, s, err) : to_folder(&o, s, err));
fail:
    hd_source_close(s);
    return st;
}

const hd_command hd_cmd_export = {
    .verb = "export",
    .summary = "write a model as GGUF (llama.cpp, ollama) or as a Hugging Face directory",
    .help = "usage: hadal export MODEL -o FILE.gguf|DIR [options]\n\n"
            "MODEL is a Hugging Face directory (a checkpoint of a run is one) or a GGUF file.  What is written appears when\n"
            "it is whole; a GGUF file of that name is replaced, a directory that is not empty is refused.\n\n"
            "  -o, --output NAME  *.gguf: one file; else a directory with config.json, model.safetensors and tokenizer\n"
            "  -t, --type NAME    bf16 (default), f32, f16; of a file also q8_0, q4_k_m, ... (hadal quantize --help)\n"
            "      --threads N    default: physical cores available\n"
            "      --json         one JSON object instead of text\n\n"
            "examples:\n"
            "  hadal export runs/tales/step-00002000 -o tales.gguf --type q8_0\n"
            "  hadal export smollm2-135m-instruct.gguf -o smollm2 --type f32\n",
    .run = run,
};
