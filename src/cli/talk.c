/* The turns of a chat and their file. */
#include "cli/talk.h"

#include <jansson.h>
#include <string.h>

#include "base/file.h"
#include "model/json.h"

enum { MAX_FILE = 64 << 20, MAX_VALUES = 1 << 20 };

static void free_message(hd_message *m)
{
    free((char *)(uintptr_t)m->text);
    free((char *)(uintptr_t)m->thinking);
}

void hd_talk_free(hd_talk *t)
{
    for (int i = 0; i < t->n; i++) free_message(&t->msg[i]);
    free(t->msg);
    *t = (hd_talk){0};
}

static hd_status insert(hd_talk *t, int at, const char *role, const char *text, const char *thinking,
                        hd_err *err)
{
    hd_status st;
    char *a = NULL, *b = NULL;
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 16;
        HD_TRY(hd_realloc(&t->msg, (size_t)cap * sizeof *t->msg, err));
        t->cap = cap;
    }
    HD_TRY(hd_strdup(&a, text, err));
    if (thinking) HD_TRY(hd_strdup(&b, thinking, err));
    memmove(&t->msg[at + 1], &t->msg[at], (size_t)(t->n - at) * sizeof *t->msg);
    t->msg[at] = (hd_message){.role = role, .text = a, .thinking = b};
    t->n++;
    return HD_OK;
fail:
    free(a);
    return st;
}

static void erase(hd_talk *t, int at)
{
    free_message(&t->msg[at]);
    t->n--;
    memmove(&t->msg[at], &t->msg[at + 1], (size_t)(t->n - at) * sizeof *t->msg);
}

hd_status hd_talk_add(hd_talk *t, const char *role, const char *text, const char *thinking, hd_err *err)
{
    return insert(t, t->n, role, text, thinking, err);
}

static int n_system(const hd_talk *t) { return t->n > 0 && strcmp(t->msg[0].role, "system") == 0; }

const char *hd_talk_system(const hd_talk *t) { return n_system(t) ? t->msg[0].text : NULL; }

hd_status hd_talk_set_system(hd_talk *t, const char *text, hd_err *err)
{
    int old = n_system(t);
    hd_status st = *text ? insert(t, 0, "system", text, NULL, err) : HD_OK;
    if (st == HD_OK && old) erase(t, *text ? 1 : 0);
    return st;
}

void hd_talk_clear(hd_talk *t)
{
    while (t->n > n_system(t)) erase(t, t->n - 1);
}

void hd_talk_pop(hd_talk *t)
{
    if (t->n > n_system(t)) erase(t, t->n - 1);
}

bool hd_talk_ends_with(const hd_talk *t, const char *role)
{
    return t->n > 0 && strcmp(t->msg[t->n - 1].role, role) == 0;
}

bool hd_talk_drop_oldest(hd_talk *t)
{
    int first = n_system(t), next = first + 1;
    while (next < t->n && strcmp(t->msg[next].role, "user") != 0) next++;
    if (next >= t->n) return false;
    for (int i = first; i < next; i++) erase(t, first);
    return true;
}

static json_t *message_json(const hd_message *m)
{
    return json_pack("{s:s, s:s, s:s*}", "role", m->role, "content", m->text, "reasoning_content",
                     m->thinking);
}

hd_status hd_talk_save(const hd_talk *t, const char *path, hd_err *err)
{
    hd_status st = HD_OK;
    json_t *all = json_array();
    char *text = NULL;
    bool made = all != NULL;
    for (int i = 0; made && i < t->n; i++) made = json_array_append_new(all, message_json(&t->msg[i])) == 0;
    if (made) text = json_dumps(all, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    if (!text) HD_TRY(hd_fail(err, HD_NOMEM, "chat: %.200s: no memory to write the conversation", path));
    HD_TRY(hd_json_save(path, text, err));
fail:
    free(text);
    json_decref(all);
    return st;
}

/* The table's own spelling of a role, so that the string outlives the file. */
static const char *known_role(const char *s)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    for (int i = 0; s && i < 3; i++)
        if (strcmp(s, roles[i]) == 0) return roles[i];
    return NULL;
}

static hd_status read_messages(hd_talk *t, json_t *all, const char *path, hd_err *err)
{
    json_t *m;
    size_t i;
    if (!json_is_array(all)) return hd_fail(err, HD_FORMAT, "chat: %.200s: not a list of messages", path);
    json_array_foreach(all, i, m)
    {
        const char *role = known_role(json_string_value(json_object_get(m, "role")));
        const char *text = json_string_value(json_object_get(m, "content"));
        const char *thinking = json_string_value(json_object_get(m, "reasoning_content"));
        if (!role || !text || (i > 0 && strcmp(role, "system") == 0))
            return hd_fail(err, HD_FORMAT,
                           "chat: %.200s: message %zu: needs a role (system first, user, assistant) "
                           "and a content",
                           path, i);
        hd_status st = hd_talk_add(t, role, text, thinking, err);
        if (st != HD_OK) return st;
    }
    return HD_OK;
}

hd_status hd_talk_load(hd_talk *t, const char *path, hd_err *err)
{
    hd_status st;
    hd_buf b;
    json_t *all = NULL;
    hd_talk fresh = {0};
    hd_buf_init(&b, MAX_FILE);
    HD_TRY(hd_file_read(&b, path, err));
    HD_TRY(hd_json_parse(&all, b.data ? b.data : "", b.len, MAX_VALUES, "chat", path, err));
    HD_TRY(read_messages(&fresh, all, path, err));
    hd_talk_free(t);
    *t = fresh;
    fresh = (hd_talk){0};
fail:
    hd_talk_free(&fresh);
    json_decref(all);
    hd_buf_free(&b);
    return st;
}
