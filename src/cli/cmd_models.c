/* hadal models: what was pulled, and removing it. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/opts.h"

static void print_text(const hd_hub_models *m)
{
    int width = 4;
    for (int i = 0; i < m->n; i++)
        if ((int)strlen(m->v[i].name) > width) width = (int)strlen(m->v[i].name);
    for (int i = 0; i < m->n; i++) {
        const hd_hub_model *v = &m->v[i];
        char day[32] = "";
        time_t t = (time_t)v->time;
        struct tm tm;
        if (v->time && localtime_r(&t, &tm)) strftime(day, sizeof day, "%Y-%m-%d %H:%M", &tm);
        if (v->unfinished)
            printf("%-*s  %20s  %-16s  %s\n", width, v->name, "unfinished download", "", v->path);
        else printf("%-*s  %17.2f GB  %-16s  %s\n", width, v->name, (double)v->bytes / 1e9, day, v->path);
    }
}

static hd_status print_json(const hd_hub_models *m, hd_err *err)
{
    json_t *list = json_array();
    bool ok = list != NULL;
    for (int i = 0; i < m->n && ok; i++) {
        const hd_hub_model *v = &m->v[i];
        json_t *j =
            json_pack("{s:s, s:s, s:I, s:I, s:b}", "name", v->name, "path", v->path, "bytes",
                      (json_int_t)v->bytes, "modified", (json_int_t)v->time, "unfinished", v->unfinished);
        ok = j && json_array_append_new(list, j) == 0;
    }
    ok = ok && json_dumpf(list, stdout, JSON_PRESERVE_ORDER | JSON_INDENT(1)) == 0;
    json_decref(list);
    if (!ok) return hd_fail(err, HD_NOMEM, "models: list: no memory, or a path that is no UTF-8");
    putchar('\n');
    return HD_OK;
}

static hd_status remove_named(const hd_hub_models *m, const char *name, hd_err *err)
{
    hd_status st;
    char *path = NULL;
    const hd_hub_model *found = NULL;
    for (int i = 0; i < m->n; i++)
        if (strcasecmp(m->v[i].name, name) == 0) found = &m->v[i];
    if (!found) {
        HD_TRY(hd_hub_resolve(&path, name, err));
        for (int i = 0; i < m->n; i++)
            if (strcmp(m->v[i].path, path) == 0) found = &m->v[i];
    }
    if (!found)
        HD_TRY(hd_fail(err, HD_IO, "models: %.200s: not among the pulled models (hadal models lists them)",
                       name));
    HD_TRY(hd_hub_remove(found, err));
    printf("removed %s, %.2f GB\n", found->name, (double)found->bytes / 1e9);
fail:
    free(path);
    return st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    const char *gone = NULL;
    bool json = false;
    int n = 0;
    hd_hub_models m = {0};
    const hd_opt opts[] = {
        {"remove", 0, HD_OPT_STR, &gone, 0, 0},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n > 1 || (n == 1 && (gone || strcmp(argv[1], "list") != 0)))
        return hd_fail(err, HD_USAGE,
                       "models: '%.100s': not known: hadal models, or hadal models --remove NAME", argv[n]);
    HD_TRY(hd_hub_list(&m, err));
    if (gone) HD_TRY(remove_named(&m, gone, err));
    else if (json) HD_TRY(print_json(&m, err));
    else print_text(&m);
fail:
    hd_hub_models_free(&m);
    return st;
}

const hd_command hd_cmd_models = {
    .verb = "models",
    .summary = "list the pulled models, or remove one",
    .help = "usage: hadal models [list] [options]\n\n"
            "Names, sizes, when they came, and paths of the models in the user's cache folder.\n\n"
            "      --remove NAME      delete a model's files\n"
            "      --json             a list of objects\n\n"
            "examples:\n"
            "  hadal models\n"
            "  hadal models --remove r1:1.5b\n",
    .run = run,
};
