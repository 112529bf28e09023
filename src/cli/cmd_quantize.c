/* hadal quantize: a model in, a GGUF file with smaller weights out.  The work is model/quantize.c's. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "model/json.h"
#include "model/quantize.h"

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

/* Ctrl-C and a polite kill end the work at the next slice, and the unfinished file is removed. */
static void watch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND}; // a second Ctrl-C kills at once
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static hd_status unknown_type(const char *type, hd_err *err)
{
    char known[256] = "";
    for (int i = 0; hd_quant_mix_at(i); i++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", hd_quant_mix_at(i)->name);
    }
    return hd_fail(err, HD_USAGE, "--type %.40s: not known: %s are", type, known);
}

static void print_text(const char *path, const hd_quant_mix *mix, const hd_quantize_report *r)
{
    printf("%s: %s, %.2f GB from %.2f GB, %.2f bits a weight, %lld tensors (", path, mix->name, (double)r->out_bytes / 1e9,
           (double)r->in_bytes / 1e9, 8 * (double)r->out_bytes / (double)r->n_weights, (long long)r->n_tensors);
    for (int i = 0, first = 1; hd_format_at(i); i++) {
        if (!r->tensors_of[i]) continue;
        printf("%s%lld %s", first ? "" : ", ", (long long)r->tensors_of[i], hd_format_at(i)->name);
        first = 0;
    }
    printf("), error %.3f %% of the weights' size, %.1f s\n", 100 * r->relative_rmse, r->seconds);
    if (r->n_fallback)
        printf("%d tensors have rows that are no multiple of 256 and got a format with blocks of 32\n", r->n_fallback);
}

static hd_status print_json(const char *path, const hd_quant_mix *mix, const hd_quantize_report *r, hd_err *err)
{
    json_t *formats = json_object(), *j = NULL;
    bool whole = formats != NULL;
    for (int i = 0; hd_format_at(i); i++)
        if (r->tensors_of[i])
            whole &= json_object_set_new(formats, hd_format_at(i)->name, json_integer(r->tensors_of[i])) == 0;
    if (whole)
        j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:f, s:f, s:O}", "file", path, "type", mix->name, "bytes_in",
                      (json_int_t)r->in_bytes, "bytes_out", (json_int_t)r->out_bytes, "tensors", (json_int_t)r->n_tensors,
                      "weights", (json_int_t)r->n_weights, "fallbacks", r->n_fallback, "relative_rmse", r->relative_rmse,
                      "seconds", r->seconds, "formats", formats);
    json_decref(formats);
    return hd_json_print_take(j, JSON_PRESERVE_ORDER, "quantize: report", err);
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    const char *type = "q4_k_m", *rules = NULL;
    int64_t threads = 0;
    bool json = false;
    int n = 0;
    const hd_opt opts[] = {
        {"type", 't', HD_OPT_STR, &type, 0, 0},
        {"tensor-type", 0, HD_OPT_STR, &rules, 0, 0},
        {"threads", 0, HD_OPT_INT, &threads, 1, 1024},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    hd_source *s = NULL;
    hd_quantize_report report;
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 2) return hd_fail(err, HD_USAGE, "quantize: two names are needed: hadal quantize IN OUT.gguf --type q4_k_m");
    hd_quantize_opts o = {.mix = hd_quant_mix_named(type), .rules = rules, .n_threads = (int)threads, .stop = &stop};
    if (!o.mix) return unknown_type(type, err);
    HD_TRY(hd_source_open(&s, argv[1], true, err));
    watch_signals();
    HD_TRY(hd_quantize(argv[2], s, &o, &report, err));
    if (json) HD_TRY(print_json(argv[2], o.mix, &report, err));
    else print_text(argv[2], o.mix, &report);
fail:
    hd_source_close(s);
    return st;
}

const hd_command hd_cmd_quantize = {
    .verb = "quantize",
    .summary = "write a model as GGUF with smaller weights",
    .help = "usage: hadal quantize IN OUT.gguf [options]\n\n"
            "IN is a Hugging Face directory or a GGUF file.  OUT.gguf appears when it is whole; until then, and after\n"
            "Ctrl-C or a full disk, a file of that name stays as it was.\n\n"
            "  -t, --type NAME        f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q2_k_s q3_k_s q3_k_m q3_k_l q4_k_s\n"
            "                         q4_k_m (default) q5_k_s q5_k_m q6_k\n"
            "      --tensor-type RULES  PATTERN=TYPE,...: tensors whose GGUF name matches a regular expression\n"
            "      --threads N        default: physical cores available\n"
            "      --json             one JSON object instead of text\n\n"
            "examples:\n"
            "  hadal quantize DeepSeek-R1-Distill-Qwen-1.5B r1.gguf\n"
            "  hadal quantize model-bf16.gguf small.gguf --type q3_k_m --tensor-type 'attn_v=q6_k,ffn_down=q4_k'\n",
    .run = run,
};
