/* The option parser. */
#include "cli/opts.h"

#include "test.h"

static hd_err err;

typedef struct {
    bool json;
    int64_t n;
    double temp;
    const char *prompt;
    hd_opt_list stop;
    int argc, n_operands;
    char *argv[16];
} world;

/* Parses a line split at spaces; "_" stands for an empty word. */
static hd_status parse(world *w, const char *line)
{
    static char text[256];
    *w = (world){.n = -7, .temp = 0.5, .argv = {"verb"}, .argc = 1};
    const hd_opt opts[] = {
        {"json", 'j', HD_OPT_FLAG, &w->json, 0, 0},
        {"count", 'n', HD_OPT_INT, &w->n, -10, 1000},
        {"temp", 't', HD_OPT_FLOAT, &w->temp, 0, 2},
        {"prompt", 'p', HD_OPT_STR, &w->prompt, 0, 0},
        {"stop", 's', HD_OPT_LIST, &w->stop, 0, 0},
        {"long-only", 0, HD_OPT_FLAG, &w->json, 0, 0},
    };
    snprintf(text, sizeof text, "%s", line);
    for (char *s = strtok(text, " "); s; s = strtok(NULL, " ")) w->argv[w->argc++] = strcmp(s, "_") == 0 ? "" : s;
    return hd_opts_parse(opts, 6, w->argc, w->argv, &w->n_operands, &err);
}

static bool refuses(const char *line, const char *why)
{
    world w;
    return parse(&w, line) == HD_USAGE && strstr(err.msg, why) != NULL;
}

int main(void)
{
    world w;
    CHECK_OK(parse(&w, ""));
    CHECK(!w.json && w.n == -7 && w.n_operands == 0);
    CHECK_OK(parse(&w, "a --json -n 5 b --temp=1.5 -p hello c"));
    CHECK(w.json && w.n == 5 && w.temp == 1.5 && strcmp(w.prompt, "hello") == 0 && w.n_operands == 3);
    CHECK(strcmp(w.argv[1], "a") == 0 && strcmp(w.argv[2], "b") == 0 && strcmp(w.argv[3], "c") == 0);
    CHECK_OK(parse(&w, "--count -3 -t0 --prompt=-x"));
    CHECK(w.n == -3 && w.temp == 0 && strcmp(w.prompt, "-x") == 0);
    CHECK_OK(parse(&w, "--prompt -x=y --count=1000"));
    CHECK(w.n == 1000 && strcmp(w.prompt, "-x=y") == 0);
    CHECK_OK(parse(&w, "--prompt= -- --json -n"));
    CHECK(w.prompt && w.prompt[0] == 0 && !w.json && w.n_operands == 2 && strcmp(w.argv[1], "--json") == 0);
    CHECK_OK(parse(&w, "- -5 _ -.5")); // all operands: standard input, numbers, nothing
    CHECK(w.n_operands == 4 && strcmp(w.argv[1], "-") == 0 && w.argv[3][0] == 0);
    CHECK(w.stop.n == 0);
    CHECK_OK(parse(&w, "--stop a x -s b --stop=_"));
    CHECK(w.stop.n == 3 && strcmp(w.stop.v[0], "a") == 0 && strcmp(w.stop.v[2], "_") == 0 && w.n_operands == 1);
    CHECK_OK(parse(&w, "--long-only"));
    CHECK(w.json);

    CHECK(refuses("--unknown", "--unknown"), "%s", err.msg);
    CHECK(refuses("-x", "-x"), "%s", err.msg);
    CHECK(refuses("--jso", "--jso"), "%s", err.msg); // no abbreviations
    CHECK(refuses("--=3", "--=3"), "%s", err.msg);
    CHECK(refuses("-n", "needs a value"), "%s", err.msg);
    CHECK(refuses("--json=1", "takes no value"), "%s", err.msg);
    CHECK(refuses("--count 1001", "-10 to 1000"), "%s", err.msg);
    CHECK(refuses("--count 5x", "5x"), "%s", err.msg);
    CHECK(refuses("--count _", "whole number"), "%s", err.msg);
    CHECK(refuses("--count 99999999999999999999", "whole number"), "%s", err.msg);
    CHECK(refuses("--temp nan", "0 to 2"), "%s", err.msg);
    CHECK(refuses("--temp 2.01", "0 to 2"), "%s", err.msg);
    CHECK(refuses("--temp 1,5", "1,5"), "%s", err.msg);

    char *many[HD_OPT_LIST_MAX + 2] = {"verb"};
    hd_opt_list list = {.n = 0};
    const hd_opt opt = {"stop", 's', HD_OPT_LIST, &list, 0, 0};
    for (int i = 1; i < HD_OPT_LIST_MAX + 2; i++) many[i] = "-sx";
    CHECK(hd_opts_parse(&opt, 1, HD_OPT_LIST_MAX + 1, many, &w.n_operands, &err) == HD_OK && list.n == HD_OPT_LIST_MAX);
    list.n = 0;
    CHECK(hd_opts_parse(&opt, 1, HD_OPT_LIST_MAX + 2, many, &w.n_operands, &err) == HD_USAGE && list.n == HD_OPT_LIST_MAX);
    return hd_test_end();
}
