/* hadal pull: fetch a model by name. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/load.h"

static void list_catalogue(void)
{
    for (int i = 0; hd_hub_catalogue(i); i++) {
        const hd_hub_entry *e = hd_hub_catalogue(i);
        printf("%-20s %s:%s\n", e->name, e->repo, e->pick);
    }
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    bool list = false;
    int64_t retries = 8;
    int n = 0;
    hd_pull p = {0};
    hd_hub_name name;
    const hd_opt opts[] = {
        {"list", 'l', HD_OPT_FLAG, &list, 0, 0},
        {"verify", 0, HD_OPT_FLAG, &p.verify, 0, 0},
        {"retries", 0, HD_OPT_INT, &retries, 0, 1000},
    };
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (list) {
        list_catalogue();
        return HD_OK;
    }
    if (n != 1)
        return hd_fail(err, HD_USAGE, "pull: one name is needed: hadal pull r1:1.5b (--list shows more)");
    p.retries = (int)retries;
    HD_TRY(hd_hub_parse(&name, argv[1], err));
    hd_watch_signals();
    HD_TRY(hd_hub_pull(&p, &name, err));
    if (p.n_fetched)
        fprintf(stderr, "%d %s fetched and checked, %.1f MB\n", p.n_fetched,
                p.n_fetched == 1 ? "file" : "files", (double)p.bytes / 1e6);
    puts(p.path);
fail:
    free(p.path);
    return st;
}

const hd_command hd_cmd_pull = {
    .verb = "pull",
    .summary = "fetch a model from the Hugging Face hub",
    .help = "usage: hadal pull NAME [options]\n\n"
            "NAME is a short name (hadal pull --list), a repository, or a repository with a format or file "
            "of it.  The\n"
            "files go to the user's cache folder ($XDG_CACHE_HOME/hadal/models); their path is printed, and "
            "the name\n"
            "then works wherever a model is expected.  An interrupted download goes on where it stopped; a "
            "file appears\n"
            "under its own name once it is whole and its SHA-256 sum is right.\n\n"
            "  -l, --list             the catalogue of short names\n"
            "      --verify           read again and check what is already here\n"
            "      --retries N        give up after N attempts without progress (default 8)\n\n"
            "HF_TOKEN gives access to private models and is sent to the hub alone; HF_ENDPOINT names another "
            "hub.\n\n"
            "examples:\n"
            "  hadal pull r1:1.5b && hadal chat r1:1.5b\n"
            "  hadal pull Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:q8_0\n"
            "  hadal pull deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B\n",
    .run = run,
};
