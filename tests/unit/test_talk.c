/* The conversation of a chat, its file, and what is shown of hostile text. */
#include <unistd.h>

#include "cli/talk.h"
#include "cli/terminal.h"
#include "test.h"

static hd_err err;

static void test_turns(void)
{
    hd_talk t = {0};
    CHECK_OK(hd_talk_add(&t, "user", "a", NULL, &err));
    CHECK_OK(hd_talk_set_system(&t, "first", &err));
    CHECK_OK(hd_talk_set_system(&t, "second", &err));
    CHECK(t.n == 2 && strcmp(hd_talk_system(&t), "second") == 0);
    CHECK_OK(hd_talk_add(&t, "assistant", "b", "thought", &err));
    CHECK(!hd_talk_drop_oldest(&t)); // the only exchange
    CHECK_OK(hd_talk_add(&t, "user", "c", NULL, &err));
    CHECK(hd_talk_ends_with(&t, "user"));
    CHECK(hd_talk_drop_oldest(&t));
    CHECK(t.n == 2 && strcmp(t.msg[1].text, "c") == 0 && strcmp(hd_talk_system(&t), "second") == 0);
    hd_talk_pop(&t);
    hd_talk_pop(&t); // not the system message
    CHECK(t.n == 1);
    CHECK_OK(hd_talk_set_system(&t, "", &err));
    CHECK(t.n == 0 && !hd_talk_system(&t) && !hd_talk_ends_with(&t, "user"));
    for (int i = 0; i < 100; i++) CHECK_OK(hd_talk_add(&t, i % 2 ? "assistant" : "user", "x", NULL, &err));
    while (hd_talk_drop_oldest(&t)) {}
    CHECK(t.n == 2);
    hd_talk_clear(&t);
    CHECK(t.n == 0);
    hd_talk_free(&t);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void test_file(const char *dir)
{
    static const char *const wrong[] = {
        "",
        "{}",
        "[",
        "[1]",
        "[{\"role\": \"user\"}]",
        "[{\"role\": \"root\", \"content\": \"x\"}]",
        "[{\"role\": \"user\", \"content\": 5}]",
        "[{\"role\": \"user\", \"content\": \"a\\u0000b\"}]",
        "[{\"role\": \"user\", \"content\": \"\xff\"}]",
        "[{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"system\", \"content\": \"late\"}]",
        "[{\"role\": \"user\", \"role\": \"user\", \"content\": \"x\"}]",
    };
    char path[128];
    hd_talk t = {0}, u = {0};
    snprintf(path, sizeof path, "%s/a.json", dir);
    CHECK_OK(hd_talk_add(&t, "user", "\"quoted\" \xc3\xa9\n\t", NULL, &err));
    CHECK_OK(hd_talk_add(&t, "assistant", "", "a thought", &err));
    CHECK_OK(hd_talk_save(&t, path, &err));
    CHECK_OK(hd_talk_load(&u, path, &err));
    CHECK(u.n == 2 && strcmp(u.msg[0].text, t.msg[0].text) == 0 && !u.msg[0].thinking);
    CHECK(u.n == 2 && strcmp(u.msg[1].thinking, "a thought") == 0 && *u.msg[1].text == 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_file(path, wrong[i]);
        CHECK(hd_talk_load(&u, path, &err) == HD_FORMAT, "%s", wrong[i]);
        CHECK(u.n == 2); // as it was
    }
    CHECK(hd_talk_load(&u, "/dev/zero", &err) != HD_OK);
    CHECK(hd_talk_load(&u, dir, &err) != HD_OK);
    CHECK(hd_talk_save(&u, "/nonexistent/x", &err) == HD_IO);
    CHECK(unlink(path) == 0);
    hd_talk_free(&t);
    hd_talk_free(&u);
}

static void shown(const char *in, size_t n, const char *out)
{
    char *s = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&s, &len);
    hd_print_shown(f, in, n);
    fclose(f);
    CHECK(strcmp(s, out) == 0, "%s is not %s", s, out);
    free(s);
}
#define SHOWN(in, out) shown(in, sizeof(in) - 1, out)

static void test_hostile(void)
{
    SHOWN("plain\n\tcaf\xc3\xa9 \xf0\x9f\x98\x80", "plain\n\tcaf\xc3\xa9 \xf0\x9f\x98\x80");
    SHOWN("\033]0;title\007", "\\x1b]0;title\\x07");
    SHOWN("a\rb\bc\0d\x7f", "a\\x0db\\x08c\\x00d\\x7f");
    SHOWN("\xc2\x9b[31m", "\\u009b[31m");
    SHOWN("\xe2\x80\xae"
          "abc\xe2\x81\xa6",
          "\\u202e"
          "abc\\u2066");
    SHOWN("\x9b"
          "1m\xff",
          "\xef\xbf\xbd"
          "1m\xef\xbf\xbd"); // no characters at all
    SHOWN("", "");
}

int main(void)
{
    char dir[] = "/tmp/hadal-talk-XXXXXX";
    CHECK(mkdtemp(dir) != NULL);
    test_turns();
    test_file(dir);
    test_hostile();
    CHECK(rmdir(dir) == 0);
    return hd_test_end();
}
