/* hadal tokenize: text to ids and back, and conversations to ids, without loading a model's weights. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/opts.h"
#include "model/chat.h"
#include "model/json.h"
#include "model/tokenizer.h"

static const size_t MAX_TEXT = (size_t)1 << 30, MAX_CHAT = (size_t)64 << 20;
enum { MAX_MESSAGES = 1 << 16, MAX_CHAT_VALUES = 1 << 20 };

static hd_status read_stdin(hd_buf *b, hd_err *err)
{
    char part[1 << 16];
    for (;;) {
        ssize_t n = read(STDIN_FILENO, part, sizeof part);
        if (n == 0) return HD_OK;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return hd_fail_errno(err, "read: standard input");
        hd_status st = hd_buf_add(b, part, (size_t)n, err);
        if (st != HD_OK) return st;
    }
}

static hd_status print_ids(const hd_ids *ids, const char *format, bool json, hd_err *err)
{
    if (json) {
        printf("{\"n\": %lld, ", (long long)ids->n);
        if (format) printf("\"format\": \"%s\", ", format);
        printf("\"ids\": [");
    }
    for (int64_t i = 0; i < ids->n; i++) printf("%s%d", i ? json ? ", " : " " : "", ids->id[i]);
    puts(json ? "]}" : "");
    return ferror(stdout) ? hd_fail(err, HD_IO, "write: standard output: the ids did not arrive") : HD_OK;
}

/* ---- Ids back to bytes ---- */

/* Decimal numbers with white space between them. */
static hd_status parse_ids(hd_ids *ids, const hd_buf *b, int64_t n_vocab, hd_err *err)
{
    for (size_t i = 0; i < b->len;) {
        if (isspace((unsigned char)b->data[i])) {
            i++;
            continue;
        }
        int64_t id = 0;
        size_t from = i;
        for (; i < b->len && isdigit((unsigned char)b->data[i]) && id < n_vocab; i++)
            id = id * 10 + b->data[i] - '0';
        bool ends = i == b->len || isspace((unsigned char)b->data[i]);
        if (id >= n_vocab)
            return hd_fail(err, HD_FORMAT,
                           "tokenize: standard input, byte %zu: the vocabulary has ids 0 to %lld", from,
                           (long long)n_vocab - 1);
        if (i == from || !ends)
            return hd_fail(err, HD_FORMAT, "tokenize: standard input, byte %zu: no token id", i);
        hd_status st = hd_ids_add(ids, (int32_t)id, err);
        if (st != HD_OK) return st;
    }
    return HD_OK;
}

static hd_status print_text(const hd_buf *b, bool json, hd_err *err)
{
    hd_status st;
    hd_buf valid;
    hd_buf_init(&valid, SIZE_MAX);
    if (!json) {
        if (b->len && fwrite(b->data, 1, b->len, stdout) != b->len)
            return hd_fail_errno(err, "write: standard output");
        return HD_OK;
    }
    HD_TRY(hd_utf8_repair(&valid, b->data ? b->data : "", b->len, err));
    json_t *o = json_pack("{s:s%}", "text", valid.data ? valid.data : "", valid.len);
    st = hd_json_print_take(o, 0, "tokenize: report", err);
fail:
    hd_buf_free(&valid);
    return st;
}

static hd_status decode(const hd_tokenizer *t, bool json, hd_err *err)
{
    hd_status st;
    hd_ids ids = {0};
    hd_buf in, out;
    hd_buf_init(&in, MAX_TEXT);
    hd_buf_init(&out, SIZE_MAX);
    HD_TRY(read_stdin(&in, err));
    HD_TRY(parse_ids(&ids, &in, hd_tokenizer_n_vocab(t), err));
    HD_TRY(hd_tokenizer_decode(t, ids.id, ids.n, true, &out, err));
    HD_TRY(print_text(&out, json, err));
fail:
    hd_ids_free(&ids);
    hd_buf_free(&in);
    hd_buf_free(&out);
    return st;
}

/* ---- A conversation ---- */

static hd_status read_message(hd_msg *m, const json_t *o, size_t i, const char *path, hd_err *err)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const char *key, *role = json_string_value(json_object_get(o, "role"));
    json_t *v;
    int k = 0;
    json_object_foreach((json_t *)o, key, v) if (
        strcmp(key, "role") != 0 && strcmp(key, "content") != 0 &&
        strcmp(key, "reasoning_content") !=
            0) return hd_fail(err, HD_UNSUPPORTED,
                              "chat: %.100s: message %zu: '%.40s' is not known here; known: role, content, "
                              "reasoning_content",
                              path, i, key);
    const json_t *text = json_object_get(o, "content"), *thinking = json_object_get(o, "reasoning_content");
    while (role && k < 4 && strcmp(role, roles[k]) != 0) k++;
    if (!role || k == 4)
        return hd_fail(err, HD_FORMAT,
                       "chat: %.100s: message %zu: role is none of system, user, assistant, tool", path, i);
    if (!json_is_string(text))
        return hd_fail(err, HD_FORMAT, "chat: %.100s: message %zu: content is no string", path, i);
    if (thinking && !json_is_string(thinking) && !json_is_null(thinking))
        return hd_fail(err, HD_FORMAT, "chat: %.100s: message %zu: reasoning_content is no string", path, i);
    *m = (hd_msg){.role = (hd_role)k,
                  .text = json_string_value(text),
                  .n = json_string_length(text),
                  .thinking = json_string_value(thinking),
                  .n_thinking = json_string_length(thinking)};
    return HD_OK;
}

static hd_status read_chat(hd_msg **msg, json_t **json, const char *path, hd_err *err)
{
    hd_status st;
    hd_buf b;
    hd_buf_init(&b, MAX_CHAT);
    if (strcmp(path, "-") == 0) HD_TRY(read_stdin(&b, err));
    else HD_TRY(hd_file_read(&b, path, err));
    HD_TRY(hd_json_parse(json, b.data, b.len, MAX_CHAT_VALUES, "chat", path, err));
    size_t n = json_array_size(*json);
    if (!json_is_array(*json) || n == 0 || n > MAX_MESSAGES)
        HD_TRY(hd_fail(err, HD_FORMAT, "chat: %.100s: a list of 1 to %d messages is expected", path,
                       MAX_MESSAGES));
    HD_TRY(hd_alloc_n(msg, n, sizeof **msg, err));
    for (size_t i = 0; i < n; i++) HD_TRY(read_message(&(*msg)[i], json_array_get(*json, i), i, path, err));
fail:
    hd_buf_free(&b);
    return st;
}

static hd_status render(hd_ids *ids, const hd_chat_format *f, const hd_tokenizer *t, const char *path,
                        int thinking, hd_err *err)
{
    hd_status st;
    json_t *json = NULL;
    hd_msg *msg = NULL;
    hd_chat_opts o = {.add_generation_prompt = true, .thinking = thinking};
    HD_TRY(read_chat(&msg, &json, path, err));
    HD_TRY(hd_chat_render(f, t, msg, (int)json_array_size(json), &o, ids, err));
fail:
    free(msg);
    json_decref(json);
    return st;
}

/* ---- The verb ---- */

static hd_status encode(hd_ids *ids, const hd_tokenizer *t, int n, char **word, hd_err *err)
{
    hd_status st = HD_OK;
    hd_buf b;
    hd_buf_init(&b, MAX_TEXT);
    if (n == 0) HD_TRY(read_stdin(&b, err));
    for (int i = 0; i < n; i++) HD_TRY(hd_buf_addf(&b, err, "%s%s", i ? " " : "", word[i]));
    HD_TRY(hd_tokenizer_encode(t, b.data ? b.data : "", b.len, ids, err));
fail:
    hd_buf_free(&b);
    return st;
}

static hd_status parse_thinking(int *v, const char *s, hd_err *err)
{
    *v = !s ? -1 : strcmp(s, "on") == 0 ? 1 : strcmp(s, "off") == 0 ? 0 : -2;
    return *v > -2 ? HD_OK : hd_fail(err, HD_USAGE, "--thinking %.40s: on or off", s);
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    const char *chat = NULL, *name = NULL, *think = NULL;
    bool back = false, json = false;
    int n = 0, thinking;
    const hd_opt opts[] = {
        {"decode", 'd', HD_OPT_FLAG, &back, 0, 0},   {"chat", 0, HD_OPT_STR, &chat, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &name, 0, 0}, {"thinking", 0, HD_OPT_STR, &think, 0, 0},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    hd_source *s = NULL;
    hd_tokenizer *t = NULL;
    const hd_chat_format *f = NULL;
    hd_ids ids = {0};
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    HD_TRY(parse_thinking(&thinking, think, err));
    if (n < 1) return hd_fail(err, HD_USAGE, "tokenize: a model is needed: hadal tokenize MODEL < text");
    if (back && (chat || n > 1))
        return hd_fail(err, HD_USAGE, "tokenize: --decode reads ids from standard input alone");
    if (chat && n > 1) return hd_fail(err, HD_USAGE, "tokenize: --chat takes its text from the file alone");
    if ((name || think) && !chat)
        return hd_fail(err, HD_USAGE, "tokenize: --chat-format and --thinking belong to --chat");
    HD_TRY(hd_hub_open_source(&s, argv[1], false, err));
    HD_TRY(hd_tokenizer_open(&t, s, err));
    if (back) {
        HD_TRY(decode(t, json, err));
        goto fail;
    }
    if (chat) {
        HD_TRY(hd_chat_pick(&f, s, t, name, err));
        HD_TRY(render(&ids, f, t, chat, thinking, err));
    } else {
        HD_TRY(encode(&ids, t, n - 1, argv + 2, err));
    }
    HD_TRY(print_ids(&ids, f ? hd_chat_name(f) : NULL, json, err));
fail:
    hd_ids_free(&ids);
    hd_tokenizer_close(t);
    hd_source_close(s);
    return st;
}

const hd_command hd_cmd_tokenize = {
    .verb = "tokenize",
    .summary = "text to token ids and back",
    .help =
        "usage: hadal tokenize MODEL [TEXT...] [options]\n\n"
        "Prints the ids of TEXT, or of the exact bytes of standard input, on one line: without BOS, and with "
        "what\n"
        "looks like a special token taken as plain text.  MODEL is a GGUF file or a Hugging Face directory; "
        "one that\n"
        "holds only a tokenizer is enough.\n\n"
        "  -d, --decode           ids on standard input back to exact bytes\n"
        "      --chat FILE        a conversation, ending where the assistant is to speak; FILE (- for "
        "standard input)\n"
        "                         is a JSON list of messages {\"role\", \"content\", \"reasoning_content\"}\n"
        "      --chat-format NAME instead of the one that the model's template tells\n"
        "      --thinking on|off  for formats with a switch\n"
        "      --json             {\"n\": ..., \"ids\": [...]}, or {\"text\": ...} with --decode\n\n"
        "examples:\n"
        "  hadal tokenize smollm2.gguf 'Hello, world'\n"
        "  hadal tokenize DeepSeek-V3 < book.txt | hadal tokenize DeepSeek-V3 --decode | cmp - book.txt\n"
        "  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | hadal tokenize qwen3.gguf --chat - "
        "--thinking off\n",
    .run = run,
};
