/* hadal tokenizer: learn a vocabulary from texts.  The work is train/bpe_train.c's. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cmd.h"
#include "cli/load.h"
#include "cli/opts.h"
#include "model/json.h"
#include "train/bpe_train.h"

static hd_status print_report(const hd_bpe_report *r, const char *dir, bool json, hd_err *err)
{
    if (json)
        return hd_json_print_take(
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "dir", dir, "n_vocab",
                      (json_int_t)r->n_vocab, "merges", (json_int_t)r->merges, "bytes", (json_int_t)r->bytes,
                      "words", (json_int_t)r->words, "distinct_words", (json_int_t)r->distinct,
                      "dropped_words", (json_int_t)r->dropped, "bytes_per_token", r->bytes_per_token,
                      "count_seconds", r->count_s, "merge_seconds", r->merge_s, "seconds", r->seconds),
            JSON_REAL_PRECISION(8), "tokenizer: report", err);
    printf("%s: %lld tokens, %.3f bytes a token; from %.1f MB, %lld distinct words; %.2f s counting, %.2f s "
           "merging\n",
           dir, (long long)r->n_vocab, r->bytes_per_token, (double)r->bytes * 1e-6, (long long)r->distinct,
           r->count_s, r->merge_s);
    return HD_OK;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    const char *dir = NULL, *chat = NULL, *field = NULL, *divider = NULL;
    hd_opt_list special = {0};
    int64_t n_vocab = 0, threads = 0, memory = 0, min_count = 0;
    bool no_digits = false, json = false;
    int n = 0;
    const hd_opt opts[] = {
        {"output", 'o', HD_OPT_STR, &dir, 0, 0},        {"vocab", 0, HD_OPT_INT, &n_vocab, 1, 1 << 22},
        {"special", 0, HD_OPT_LIST, &special, 0, 0},    {"no-digits", 0, HD_OPT_FLAG, &no_digits, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &chat, 0, 0},    {"field", 0, HD_OPT_STR, &field, 0, 0},
        {"divider", 0, HD_OPT_STR, &divider, 0, 0},     {"min-count", 0, HD_OPT_INT, &min_count, 1, 1 << 30},
        {"memory", 0, HD_OPT_INT, &memory, 1, 1 << 20}, {"threads", 't', HD_OPT_INT, &threads, 1, 1024},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    hd_bpe_report r;
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n < 1)
        return hd_fail(err, HD_USAGE,
                       "tokenizer: files are needed: hadal tokenizer FILE... -o DIR --vocab N");
    if (!dir) return hd_fail(err, HD_USAGE, "tokenizer: -o DIR is needed");
    if (!n_vocab) return hd_fail(err, HD_USAGE, "tokenizer: --vocab N is needed");
    const hd_text_opts text = {.field = field, .divider = divider};
    const hd_bpe_opts o = {
        .n_vocab = n_vocab,
        .special = special.v,
        .n_special = special.n,
        .digits = !no_digits,
        .chat_format = chat,
        .min_count = min_count,
        .text = &text,
        .n_threads = (int)threads,
        .max_bytes = (size_t)memory << 20,
        .progress = true,
        .stop = &hd_interrupted,
    };
    hd_watch_signals();
    HD_TRY(hd_bpe_train(dir, (const char *const *)argv + 1, n, &o, &r, err));
    if (r.n_vocab < n_vocab)
        hd_warn("tokenizer: the text has no more pairs that stand %lld times: %lld tokens instead of %lld",
                (long long)(min_count ? min_count : 2), (long long)r.n_vocab, (long long)n_vocab);
    HD_TRY(print_report(&r, dir, json, err));
fail:
    return st;
}

const hd_command hd_cmd_tokenizer = {
    .verb = "tokenizer",
    .summary = "learn a vocabulary from texts",
    .help = "usage: hadal tokenizer FILE... -o DIR --vocab N [options]\n\n"
            "Learns a byte-level BPE vocabulary of N tokens (256 bytes and the special ones included) and "
            "writes tokenizer.json and\n"
            "tokenizer_config.json into DIR, for hadal and for Hugging Face's programs.  FILE: text, JSONL, "
            "either behind .zst, or\n"
            "Parquet, by its name; of any size.\n\n"
            "  -o, --output DIR       made when it is missing\n"
            "      --vocab N          tokens in all\n"
            "      --special TOKEN    a token of its own that no text can spell; again for more (default "
            "<|endoftext|>)\n"
            "      --chat-format NAME chatml, deepseek-v3, deepseek-r1 or llama3: its template and its "
            "special tokens\n"
            "      --no-digits        up to three digits together in a word; else each is one by itself\n"
            "      --field NAME       of JSONL, the column of Parquet (text)\n"
            "      --divider LINE     of text files: the line that ends a document\n"
            "      --min-count N      pairs seen less often are not joined (2)\n"
            "      --memory MB        for the table of words (1024); rarer ones are dropped beyond it\n"
            "  -t, --threads N        (all cores)\n"
            "      --json             the report as JSON\n\n"
            "examples:\n"
            "  hadal tokenizer stories.txt -o tok --vocab 4096 --divider '<|endoftext|>'\n"
            "  hadal tokenizer wiki.jsonl.zst books.parquet -o tok --vocab 32768 --chat-format deepseek-r1\n",
    .run = run,
};
