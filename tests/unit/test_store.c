/* The page's store: chats and their trees, search, export and import, what survives kill -9, what a full disk
 * and a read-only file do. */
#include "serve/store.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

enum { ME = HD_STORE_LOCAL, OTHER = 2 };
static char dir[] = "/tmp/hadal-store-XXXXXX";
static char path[64];
static hd_err err;

static void fresh(const char *name)
{
    snprintf(path, sizeof path, "%s/%s.db", dir, name);
}

static int64_t num(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }
static const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "(none)";
}

static int64_t ask(hd_store *s, int64_t chat, int64_t parent, const char *role, const char *text)
{
    int64_t id = 0;
    CHECK_OK(hd_store_message_add(s, ME, chat, parent, role, text, "done", &id, &err));
    return id;
}

static void tree(void)
{
    hd_store *s = NULL;
    int64_t chat = 0, of = 0, n = 0;
    json_t *o = NULL, *set;
    struct stat sb;
    fresh("tree");
    CHECK_OK(hd_store_open(&s, path, &err));
    CHECK(stat(path, &sb) == 0 && (sb.st_mode & 0777) == 0600, "mode %o", sb.st_mode);
    CHECK_OK(hd_store_chat_add(s, ME, NULL, "Be brief.", NULL, &chat, &err));
    int64_t q1 = ask(s, chat, 0, "user", "  Why is the sky blue?\nSecond line");
    int64_t a1 = ask(s, chat, q1, "assistant", "Rayleigh scattering.");
    int64_t a2 = ask(s, chat, q1, "assistant", "Because of air.");
    int64_t q2 = ask(s, chat, a2, "user", "And sunsets?");
    CHECK_OK(hd_store_chat_get(s, ME, chat, true, &o, &err));
    CHECK(strcmp(str(o, "title"), "Why is the sky blue?") == 0, "%s", str(o, "title"));
    CHECK(strcmp(str(o, "system"), "Be brief.") == 0);
    CHECK(num(o, "head") == q2 && json_array_size(json_object_get(o, "messages")) == 4);
    CHECK(json_is_null(json_object_get(json_array_get(json_object_get(o, "messages"), 0), "parent")));
    json_decref(o);

    CHECK_OK(hd_store_path(s, ME, q2, &of, &o, &err));
    CHECK(of == chat && json_array_size(o) == 3);
    CHECK(num(json_array_get(o, 0), "id") == q1 && num(json_array_get(o, 1), "id") == a2 && num(json_array_get(o, 2), "id") == q2);
    json_decref(o);

    set = json_pack("{s:s, s:b, s:{s:f}, s:I, s:i}", "title", "Sky", "pinned", 1, "settings", "temperature", 0.5, "head", (json_int_t)a1, "junk", 1);
    CHECK_OK(hd_store_chat_set(s, ME, chat, set, &err));
    json_decref(set);
    CHECK_OK(hd_store_chat_get(s, ME, chat, false, &o, &err));
    CHECK(num(o, "head") == a1 && json_is_true(json_object_get(o, "pinned")) && strcmp(str(o, "title"), "Sky") == 0);
    CHECK(json_real_value(json_object_get(json_object_get(o, "settings"), "temperature")) == 0.5);
    CHECK(!json_object_get(o, "messages"));
    json_decref(o);

    /* A wrong part changes nothing of the rest. */
    set = json_pack("{s:s, s:i}", "title", "Lost", "head", 999);
    CHECK(hd_store_chat_set(s, ME, chat, set, &err) == HD_USAGE);
    json_decref(set);
    CHECK_OK(hd_store_chat_get(s, ME, chat, false, &o, &err));
    CHECK(strcmp(str(o, "title"), "Sky") == 0);
    json_decref(o);

    /* Deleting a2 takes the question after it along; the head, elsewhere, stays. */
    CHECK_OK(hd_store_message_delete(s, ME, a2, &err));
    CHECK(hd_store_path(s, ME, q2, &of, &o, &err) == HD_USAGE);
    CHECK_OK(hd_store_message_delete(s, ME, a1, &err));
    CHECK_OK(hd_store_chat_get(s, ME, chat, true, &o, &err));
    CHECK(num(o, "head") == q1 && json_array_size(json_object_get(o, "messages")) == 1);
    json_decref(o);

    /* Another owner sees and changes nothing. */
    CHECK(hd_store_chat_get(s, OTHER, chat, true, &o, &err) == HD_USAGE);
    CHECK(hd_store_chat_delete(s, OTHER, chat, &err) == HD_USAGE);
    CHECK(hd_store_message_delete(s, OTHER, q1, &err) == HD_USAGE);
    CHECK(hd_store_message_save(s, OTHER, q1, "x", NULL, "done", NULL, &err) == HD_USAGE);
    CHECK(hd_store_message_add(s, OTHER, chat, q1, "user", "x", "done", &n, &err) == HD_USAGE);
    CHECK_OK(hd_store_search(s, OTHER, "sky", &o, &err));
    CHECK(json_array_size(o) == 0);
    json_decref(o);

    /* A parent in another chat is none. */
    int64_t second = 0;
    CHECK_OK(hd_store_chat_add(s, ME, NULL, NULL, NULL, &second, &err));
    CHECK(hd_store_message_add(s, ME, second, q1, "user", "x", "done", &n, &err) == HD_USAGE);
    CHECK_OK(hd_store_chats(s, ME, 0, 10, &o, &err));
    CHECK(json_array_size(o) == 2 && num(json_array_get(o, 0), "id") == chat); // pinned before newer
    json_decref(o);
    CHECK_OK(hd_store_chats(s, ME, 1, 10, &o, &err));
    CHECK(json_array_size(o) == 1 && num(json_array_get(o, 0), "id") == second);
    json_decref(o);
    CHECK_OK(hd_store_wipe(s, ME, &err));
    CHECK_OK(hd_store_chats(s, ME, 0, 10, &o, &err));
    CHECK(json_array_size(o) == 0);
    json_decref(o);
    CHECK_OK(hd_store_search(s, ME, "sky", &o, &err));
    CHECK(json_array_size(o) == 0);
    json_decref(o);
    hd_store_close(s);
}

/* How many chats hold these words. */
static int found(hd_store *s, const char *words)
{
    json_t *o = NULL;
    CHECK_OK(hd_store_search(s, ME, words, &o, &err));
    int n = (int)json_array_size(o);
    json_decref(o);
    return n;
}

static void search(void)
{
    hd_store *s = NULL;
    int64_t a = 0, b = 0, m;
    json_t *o = NULL;
    fresh("search");
    CHECK_OK(hd_store_open(&s, path, &err));
    CHECK_OK(hd_store_chat_add(s, ME, NULL, NULL, NULL, &a, &err));
    CHECK_OK(hd_store_chat_add(s, ME, "Étude", NULL, NULL, &b, &err));
    m = ask(s, a, 0, "user", "Être ou ne pas être, telle est la question: fractions of 1/2");
    ask(s, a, m, "assistant", "我们今天学习线性代数。\001 Eigenvalues follow.");
    ask(s, b, 0, "user", "Linear algebra, please");
    CHECK(found(s, "etre") == 1 && found(s, "ÊTRE question") == 1 && found(s, "question algebra") == 0);
    CHECK(found(s, "eigenv") == 1);           // the last word as a prefix
    CHECK(found(s, "eigenv follow") == 0);    // the others whole
    CHECK(found(s, "线性代数") == 1 && found(s, "代数") == 1 && found(s, "数代") == 0 && found(s, "学") == 1);
    CHECK(found(s, "etude") == 1 && found(s, "ne pas") == 1);
    CHECK(found(s, "") == 0 && found(s, "   ") == 0 && found(s, "***") == 0 && found(s, "\"") == 0);
    /* Nothing of the search engine's own language works. */
    CHECK(found(s, "etre OR algebra") == 0 && found(s, "text:etre") == 0 && found(s, "NEAR(etre question)") == 0 && found(s, "et* algebra") == 0);
    found(s, "a\"b' ; DROP TABLE chat -- ) ( ^ + {");
    CHECK_OK(hd_store_search(s, ME, "代数", &o, &err));
    CHECK(strstr(str(json_array_get(o, 0), "excerpt"), "\002代数\003") || strstr(str(json_array_get(o, 0), "excerpt"), "\002代\003\002数\003"),
          "%s", str(json_array_get(o, 0), "excerpt"));
    CHECK(!strstr(str(json_array_get(o, 0), "excerpt"), "\xe2\x80\x8b"));
    json_decref(o);
    /* A running answer is found when it is finished; a changed one under its new text only. */
    int64_t r = 0;
    CHECK_OK(hd_store_message_add(s, ME, a, m, "assistant", "", "running", &r, &err));
    CHECK_OK(hd_store_message_save(s, ME, r, "zebra", "", "running", NULL, &err));
    CHECK(found(s, "zebra") == 0);
    CHECK_OK(hd_store_message_save(s, ME, r, "zebra giraffe", "thought", "done", NULL, &err));
    CHECK(found(s, "zebra") == 1 && found(s, "thought") == 0);
    CHECK_OK(hd_store_message_delete(s, ME, r, &err));
    CHECK(found(s, "zebra") == 0);
    CHECK_OK(hd_store_chat_delete(s, ME, b, &err));
    CHECK(found(s, "etude") == 0 && found(s, "algebra") == 0);
    char *big = malloc(5001);
    memset(big, 'a', 5000), big[5000] = 0;
    CHECK(hd_store_search(s, ME, big, &o, &err) == HD_LIMIT);
    free(big);
    hd_store_close(s);
}

static void carry(void)
{
    hd_store *s = NULL, *t = NULL;
    int64_t chat = 0, n = 0;
    json_t *o = NULL, *back = NULL;
    char copy[96];
    fresh("carry");
    CHECK_OK(hd_store_open(&s, path, &err));
    CHECK_OK(hd_store_chat_add(s, ME, "Title", "Sys", NULL, &chat, &err));
    int64_t q = ask(s, chat, 0, "user", "One"), a = ask(s, chat, q, "assistant", "Two");
    json_t *info = json_pack("{s:i}", "gen_tok", 3);
    CHECK_OK(hd_store_message_save(s, ME, a, "Two", "hm\nyes", "length", info, &err));
    json_decref(info);
    ask(s, chat, q, "assistant", "Other");
    json_t *set = json_pack("{s:I}", "head", (json_int_t)a);
    CHECK_OK(hd_store_chat_set(s, ME, chat, set, &err));
    json_decref(set);

    hd_buf md;
    hd_buf_init(&md, 1 << 20);
    CHECK_OK(hd_store_export_md(s, ME, chat, &md, &err));
    CHECK(strstr(md.data, "# Title\n") && strstr(md.data, "## User\n\nOne\n") && strstr(md.data, "> hm\n> yes\n\nTwo\n") && !strstr(md.data, "Other"));
    hd_buf_free(&md);

    CHECK_OK(hd_store_export(s, ME, 0, &o, &err));
    fresh("carry2");
    CHECK_OK(hd_store_open(&t, path, &err));
    CHECK_OK(hd_store_chat_add(t, ME, "In the way", NULL, NULL, &n, &err)); // so that ids differ
    ask(t, n, 0, "user", "x");
    CHECK_OK(hd_store_import(t, ME, o, &n, &err));
    CHECK(n == 1);
    CHECK_OK(hd_store_export(t, ME, 2, &back, &err));
    json_t *c = json_array_get(json_object_get(back, "chats"), 0), *m = json_object_get(c, "messages");
    CHECK(json_array_size(m) == 3 && strcmp(str(c, "title"), "Title") == 0 && strcmp(str(c, "system"), "Sys") == 0);
    CHECK(num(c, "head") == num(json_array_get(m, 1), "id") && num(json_array_get(m, 1), "parent") == num(json_array_get(m, 0), "id"));
    CHECK(strcmp(str(json_array_get(m, 1), "thinking"), "hm\nyes") == 0 && strcmp(str(json_array_get(m, 1), "state"), "length") == 0);
    CHECK(num(json_object_get(json_array_get(m, 1), "info"), "gen_tok") == 3);
    json_decref(back);

    /* All or nothing: a second chat that is wrong. */
    json_t *list = json_object_get(o, "chats");
    json_array_append_new(list, json_pack("{s:s, s:[{s:i, s:i, s:s, s:s}]}", "title", "Bad", "messages", "id", 5, "parent", 4, "role", "user", "text", "t"));
    CHECK(hd_store_import(t, ME, o, &n, &err) == HD_FORMAT && strstr(err.msg, "chat 1: message 0: its parent 4"), "%s", err.msg);
    json_decref(o);
    CHECK_OK(hd_store_chats(t, ME, 0, 10, &o, &err));
    CHECK(json_array_size(o) == 2);
    json_decref(o);
    o = json_pack("{s:s}", "format", "other");
    CHECK(hd_store_import(t, ME, o, &n, &err) == HD_FORMAT);
    json_decref(o);

    /* An online backup: while `t` is open. */
    snprintf(copy, sizeof copy, "%s/copy.db", dir);
    CHECK_OK(hd_store_backup(path, copy, &err));
    ask(t, 1, 0, "user", "after the backup");
    CHECK_OK(hd_store_backup(path, copy, &err)); // replaces the first
    hd_store_close(t);
    CHECK_OK(hd_store_open(&t, copy, &err));
    CHECK(found(t, "backup") == 1);
    CHECK_OK(hd_store_chats(t, ME, 0, 10, &o, &err));
    CHECK(json_array_size(o) == 2);
    json_decref(o);
    hd_store_close(t);
    hd_store_close(s);
    CHECK(hd_store_backup("/nonexistent/x.db", copy, &err) == HD_IO);
    CHECK(hd_store_backup(dir, copy, &err) == HD_IO);
    CHECK(hd_store_backup(path, "/nonexistent/copy.db", &err) == HD_IO);
}

/* A child adds messages and tells each id through a pipe once it is acknowledged; killed at some point, every
 * id that was told is there. */
static void killed(void)
{
    enum { ROUNDS = 12 };
    fresh("killed");
    int64_t last = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int fd[2];
        CHECK(pipe(fd) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            hd_store *s;
            int64_t chat, id;
            if (hd_store_open(&s, path, NULL) != HD_OK || hd_store_chat_add(s, ME, "c", NULL, NULL, &chat, NULL) != HD_OK) _exit(1);
            for (;;) {
                if (round % 2) { // alone, and in groups
                    if (hd_store_message_add(s, ME, chat, 0, "assistant", "text", "running", &id, NULL) != HD_OK) _exit(2);
                } else if (hd_store_begin(s, NULL) != HD_OK ||
                           hd_store_message_add(s, ME, chat, 0, "assistant", "one", "running", &id, NULL) != HD_OK ||
                           hd_store_message_add(s, ME, chat, 0, "assistant", "two", "running", &id, NULL) != HD_OK ||
                           hd_store_commit(s, NULL) != HD_OK) {
                    _exit(3);
                }
                if (write(fd[1], &id, sizeof id) != sizeof id) _exit(4);
            }
        }
        close(fd[1]);
        int64_t id = 0, told = 0;
        for (int i = 0; i < 3 + round * 2 && read(fd[0], &id, sizeof id) == sizeof id; i++) told = id;
        kill(pid, SIGKILL);
        while (read(fd[0], &id, sizeof id) == sizeof id) told = id; // what was told before the signal arrived
        int status = 0;
        waitpid(pid, &status, 0);
        CHECK(WIFSIGNALED(status), "status %x", status);
        close(fd[0]);
        hd_store *s = NULL;
        CHECK_OK(hd_store_open(&s, path, &err));
        if (!s) return;
        json_t *o = NULL;
        int64_t chat;
        int missing = 0;
        for (int64_t i = last + 1; i <= told; i++) {
            missing += hd_store_path(s, ME, i, &chat, &o, &err) != HD_OK || strcmp(str(json_array_get(o, 0), "state"), "interrupted") != 0;
            json_decref(o);
            o = NULL;
        }
        CHECK(told > last && missing == 0, "told %lld, missing %d", (long long)told, missing);
        last = told;
        if (round % 2 == 0) { // one past the last told may be there, too: committed, not yet told
            if (hd_store_path(s, ME, last + 1, &chat, &o, &err) == HD_OK) last += 2, json_decref(o);
        } else if (hd_store_path(s, ME, last + 1, &chat, &o, &err) == HD_OK) {
            last += 1, json_decref(o);
        }
        hd_store_close(s);
    }
}

/* No byte beyond a size can be written: as a full disk.  What was acknowledged stays, and work goes on
 * once there is room. */
static void full_disk(void)
{
    hd_store *s = NULL;
    int64_t chat = 0, id = 0, kept = 0;
    json_t *o = NULL;
    struct rlimit old, small;
    signal(SIGXFSZ, SIG_IGN);
    fresh("full");
    CHECK_OK(hd_store_open(&s, path, &err));
    CHECK_OK(hd_store_chat_add(s, ME, "c", NULL, NULL, &chat, &err));
    char *text = malloc(20001);
    memset(text, 'x', 20000), text[20000] = 0;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 800 << 10;
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    hd_status st = HD_OK;
    for (int i = 0; i < 1000 && st == HD_OK; i++) {
        st = hd_store_message_add(s, ME, chat, 0, "user", text, "done", &id, &err);
        if (st == HD_OK) kept++;
    }
    CHECK(st == HD_IO && kept > 3 && kept < 1000, "status %d, %lld kept: %s", st, (long long)kept, err.msg);
    /* In a group: the failure is told at the latest by commit. */
    st = hd_store_begin(s, &err);
    if (st == HD_OK) st = hd_store_message_add(s, ME, chat, 0, "user", text, "done", &id, &err);
    hd_status st2 = hd_store_message_add(s, ME, chat, 0, "user", text, "done", &id, &err);
    hd_status st3 = hd_store_commit(s, &err);
    CHECK(st != HD_OK || st2 != HD_OK || st3 != HD_OK);
    CHECK_OK(hd_store_chat_get(s, ME, chat, true, &o, &err)); // reading still works
    CHECK((int64_t)json_array_size(json_object_get(o, "messages")) == kept);
    json_decref(o);
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK_OK(hd_store_message_add(s, ME, chat, 0, "user", text, "done", &id, &err));
    hd_store_close(s);
    CHECK_OK(hd_store_open(&s, path, &err));
    CHECK_OK(hd_store_chat_get(s, ME, chat, true, &o, &err));
    CHECK((int64_t)json_array_size(json_object_get(o, "messages")) == kept + 1);
    json_decref(o);
    hd_store_close(s);
    free(text);
}

/* As a user who may not write it (the test may run as root, whom modes do not stop). */
static void read_only(void)
{
    hd_store *s = NULL;
    int64_t chat = 0, id = 0;
    fresh("readonly");
    CHECK_OK(hd_store_open(&s, path, &err));
    CHECK_OK(hd_store_chat_add(s, ME, "kept", NULL, NULL, &chat, &err));
    hd_store_close(s);
    CHECK(chmod(path, 0444) == 0 && chmod(dir, 0555) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && seteuid(65534) != 0) _exit(9);
        hd_err e = {0};
        hd_status st = hd_store_open(&s, path, &e);
        _exit(st == HD_IO && strstr(e.msg, path) ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    CHECK(chmod(dir, 0755) == 0 && chmod(path, 0600) == 0);
    CHECK_OK(hd_store_open(&s, path, &err));
    CHECK_OK(hd_store_message_add(s, ME, chat, 0, "user", "x", "done", &id, &err));
    hd_store_close(s);
}

static void wrong_files(void)
{
    hd_store *s = NULL;
    fresh("text");
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++) fputs("this is no database at all\n", f);
    fclose(f);
    CHECK(hd_store_open(&s, path, &err) == HD_FORMAT && s == NULL, "%s", err.msg);
    CHECK(hd_store_open(&s, dir, &err) == HD_IO && s == NULL);
    CHECK(hd_store_open(&s, "/dev/null", &err) == HD_IO && s == NULL);
    CHECK(hd_store_open(&s, "/nonexistent/chats.db", &err) == HD_IO && s == NULL);
    fresh("limits");
    CHECK_OK(hd_store_open(&s, path, &err));
    int64_t chat = 0, id = 0;
    CHECK_OK(hd_store_chat_add(s, ME, NULL, NULL, NULL, &chat, &err));
    char *big = malloc(HD_STORE_MAX_TEXT + 2);
    memset(big, 'y', HD_STORE_MAX_TEXT + 1), big[HD_STORE_MAX_TEXT + 1] = 0;
    CHECK(hd_store_message_add(s, ME, chat, 0, "user", big, "done", &id, &err) == HD_LIMIT);
    big[HD_STORE_MAX_TEXT] = 0;
    CHECK_OK(hd_store_message_add(s, ME, chat, 0, "user", big, "done", &id, &err));
    json_t *o = NULL;
    CHECK_OK(hd_store_chat_get(s, ME, chat, false, &o, &err)); // a title from a line without end
    CHECK(strlen(str(o, "title")) == 83);
    json_decref(o);
    free(big);
    hd_store_close(s);
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    tree();
    search();
    carry();
    killed();
    full_disk();
    read_only();
    wrong_files();
    char cmd[64];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    CHECK(system(cmd) == 0);
    return hd_test_end();
}
