/* tokenizer.json and tokenizer_config.json, as Hugging Face's programs read them.
 *
 * Ids: the 256 bytes in the order of their spelling, the learnt tokens in the order in which they were
 * made, the special ones.  Words are cut by one Split; no normal form, no prefix space.  Both patterns are
 * known to GGUF by a name. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "model/json.h"
#include "train/bpe_impl.h"

/* o: taken.  Sets *ok false when something could not be made. */
static void put(json_t *to, const char *key, json_t *o, bool *ok)
{
    if (json_object_set_new(to, key, o) != 0) *ok = false;
}

static void append(json_t *to, json_t *o, bool *ok)
{
    if (json_array_append_new(to, o) != 0) *ok = false;
}

static json_t *added_token(const char *content, int64_t id)
{
    json_t *o = json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", content, "single_word", 0, "lstrip", 0,
                          "rstrip", 0, "normalized", 0, "special", 1);
    if (o && id >= 0 && json_object_set_new(o, "id", json_integer(id)) != 0) {
        json_decref(o);
        o = NULL;
    }
    return o;
}

static json_t *pre_tokenizer(bool digits)
{
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b, s:b}]}", "type", "Sequence",
                     "pretokenizers", "type", "Split", "pattern", "Regex",
                     digits ? hd_bpe_pattern_digits : hd_bpe_pattern_numbers, "behavior", "Isolated",
                     "invert", 0, "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     0);
}

/* Puts the first token before a text, where the format wants that. */
static json_t *post_processor(const hd_chat_template *chat, int64_t bos_id)
{
    const char *bos = chat ? chat->bos : "";
    if (!chat || !chat->adds_bos)
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets",
                         0, "use_regex", 1);
    return json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, "
                     "s:i}}, {s:{s:s, s:i}}], "
                     "s:{s:{s:s, s:[I], s:[s]}}}",
                     "type", "TemplateProcessing", "single", "SpecialToken", "id", bos, "type_id", 0,
                     "Sequence", "id", "A", "type_id", 0, "pair", "SpecialToken", "id", bos, "type_id", 0,
                     "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", bos, "type_id", 1, "Sequence",
                     "id", "B", "type_id", 1, "special_tokens", bos, "id", bos, "ids", (json_int_t)bos_id,
                     "tokens", bos);
}

static hd_status spell_token(hd_buf *out, const hd_bpe_learnt *l, int32_t id, hd_err *err)
{
    return hd_bpe_spell(out, l->text + l->at[id], (size_t)(l->at[id + 1] - l->at[id]), err);
}

static hd_status put_model(json_t *model, const hd_bpe_learnt *l, bool digits, bool *ok, hd_err *err)
{
    hd_status st = HD_OK;
    json_t *vocab = json_object(), *merges = json_array();
    hd_buf s;
    hd_buf_init(&s, SIZE_MAX);
    for (int32_t i = 0; i < l->n; i++) {
        hd_buf_clear(&s);
        HD_TRY(spell_token(&s, l, i, err));
        put(vocab, s.data, json_integer(i), ok);
    }
    for (int64_t i = 0; i < l->n_join; i++) {
        hd_buf_clear(&s);
        HD_TRY(spell_token(&s, l, l->join[i].a, err));
        HD_TRY(hd_buf_adds(&s, " ", err));
        HD_TRY(spell_token(&s, l, l->join[i].b, err));
        append(merges, json_stringn(s.data, s.len), ok);
    }
    put(model, "type", json_string("BPE"), ok);
    put(model, "dropout", json_null(), ok);
    put(model, "unk_token", json_null(), ok);
    put(model, "continuing_subword_prefix", json_null(), ok);
    put(model, "end_of_word_suffix", json_null(), ok);
    put(model, "fuse_unk", json_false(), ok);
    put(model, "byte_fallback", json_false(), ok);
    put(model, "ignore_merges", json_boolean(!digits), ok); // as Llama 3 has it
    put(model, "vocab", json_incref(vocab), ok);
    put(model, "merges", json_incref(merges), ok);
fail:
    json_decref(vocab);
    json_decref(merges);
    hd_buf_free(&s);
    return st;
}

static int64_t id_of(const hd_bpe_learnt *l, const char *const *special, int n, const char *token)
{
    for (int i = 0; i < n; i++)
        if (strcmp(special[i], token) == 0) return l->n + i;
    return -1;
}

static json_t *config_of(const hd_bpe_learnt *l, const char *const *special, int n,
                         const hd_chat_template *chat, bool *ok)
{
    json_t *o = json_object(), *added = json_object();
    char id[24];
    for (int i = 0; i < n; i++) {
        snprintf(id, sizeof id, "%lld", (long long)(l->n + i));
        put(added, id, added_token(special[i], -1), ok);
    }
    put(o, "tokenizer_class", json_string("PreTrainedTokenizerFast"), ok);
    put(o, "add_bos_token", json_boolean(chat && chat->adds_bos), ok);
    put(o, "add_prefix_space", json_false(), ok);
    put(o, "clean_up_tokenization_spaces", json_false(), ok);
    put(o, "bos_token", json_string(chat ? chat->bos : special[0]), ok);
    put(o, "eos_token", json_string(chat ? chat->eos : special[0]), ok);
    put(o, "pad_token", json_string(chat ? chat->pad : special[0]), ok);
    put(o, "added_tokens_decoder", added, ok);
    if (chat) put(o, "chat_template", json_string(chat->text), ok);
    return o;
}

static json_t *tokenizer_of(const hd_bpe_learnt *l, bool digits, const char *const *special, int n,
                            const hd_chat_template *chat, json_t *model, bool *ok)
{
    json_t *o = json_object(), *added = json_array();
    for (int i = 0; i < n; i++) append(added, added_token(special[i], l->n + i), ok);
    put(o, "version", json_string("1.0"), ok);
    put(o, "truncation", json_null(), ok);
    put(o, "padding", json_null(), ok);
    put(o, "added_tokens", added, ok);
    put(o, "normalizer", json_null(), ok);
    put(o, "pre_tokenizer", pre_tokenizer(digits), ok);
    put(o, "post_processor", post_processor(chat, chat ? id_of(l, special, n, chat->bos) : -1), ok);
    put(o, "decoder",
        json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1,
                  "use_regex", 1),
        ok);
    put(o, "model", json_incref(model), ok);
    return o;
}

/* Up to the moment when it takes its place. */
static hd_status write_json(hd_newfile *f, const char *dir, const char *name, const json_t *o, hd_err *err)
{
    hd_status st;
    hd_buf path;
    char *text = json_dumps(o, JSON_INDENT(1));
    hd_buf_init(&path, 1 << 16);
    if (!text || hd_json_refused()) HD_TRY(hd_fail(err, HD_NOMEM, "tokenizer: %s: out of memory", name));
    HD_TRY(hd_buf_addf(&path, err, "%s/%s", dir, name));
    HD_TRY(hd_newfile_begin(f, path.data, err));
    HD_TRY(hd_newfile_write(f, text, strlen(text), err));
    HD_TRY(hd_newfile_write(f, "\n", 1, err));
fail:
    hd_buf_free(&path);
    free(text);
    return st;
}

hd_status hd_bpe_write(const char *dir, const hd_bpe_learnt *l, bool digits, const char *const *special,
                       int n_special, const hd_chat_template *chat, hd_err *err)
{
    hd_status st;
    bool ok = true;
    hd_newfile file[2] = {{0}};
    hd_json_note();
    json_t *model = json_object(), *tok = NULL, *config = NULL;
    HD_TRY(put_model(model, l, digits, &ok, err));
    tok = tokenizer_of(l, digits, special, n_special, chat, model, &ok);
    config = config_of(l, special, n_special, chat, &ok);
    if (!ok || hd_json_refused()) HD_TRY(hd_fail(err, HD_NOMEM, "tokenizer: out of memory"));
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) HD_TRY(hd_fail_errno(err, "make folder: %s", dir));
    HD_TRY(write_json(&file[0], dir, "tokenizer_config.json", config, err));
    HD_TRY(write_json(&file[1], dir, "tokenizer.json", tok, err));
    for (int i = 0; i < 2; i++) HD_TRY(hd_newfile_commit(&file[i], err));
fail:
    for (int i = 0; i < 2; i++) hd_newfile_abort(&file[i]);
    json_decref(model);
    json_decref(tok);
    json_decref(config);
    return st;
}
