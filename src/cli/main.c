/* The program: finds the verb in the table, runs it, prints what went wrong.
 *
 * Exit status: 0 done, 1 failed, 2 asked wrongly (unknown verb or option).  Errors are one line on stderr,
 * "hadal: what: where: why".  A verb owns its output and its options; nothing else is global. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd.h"

/* One line a verb, in the order in which `hadal --help` shows them. */
const hd_command *const hd_commands[] = {
    &hd_cmd_chat,
    &hd_cmd_serve,
    &hd_cmd_generate,
    &hd_cmd_bench,
    &hd_cmd_pretrain,
    &hd_cmd_sft,
    &hd_cmd_distil,
    &hd_cmd_runs,
    &hd_cmd_plot,
    &hd_cmd_data,
    &hd_cmd_inspect,
    &hd_cmd_models,
    &hd_cmd_pull,
    &hd_cmd_quantize,
    &hd_cmd_export,
    &hd_cmd_cost,
    &hd_cmd_score,
    &hd_cmd_tokenize,
    &hd_cmd_tokenizer,
    &hd_cmd_top,
    &hd_cmd_backup,
    &hd_cmd_completion,
    NULL, // ends the table
};

static void print_help(FILE *f)
{
    fputs("hadal: open DeepSeek, Qwen and Llama models and talk with them\n\n"
          "usage: hadal VERB [options] ...\n\n",
          f);
    for (int i = 0; hd_commands[i]; i++) fprintf(f, "  %-12s %s\n", hd_commands[i]->verb, hd_commands[i]->summary);
    fputs("\nhadal VERB --help shows a verb's options and examples; hadal --version the version.\n", f);
}

static const hd_command *find(const char *verb)
{
    for (int i = 0; hd_commands[i]; i++) {
        if (strcmp(hd_commands[i]->verb, verb) == 0) return hd_commands[i];
    }
    return NULL;
}

/* --help anywhere among the options; after "--" it is an operand like any other. */
static bool asks_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

/* Everything printed must have arrived: a full disk behind a redirection is a failure, not a silent loss.  A
 * reader such as `head` that has seen enough is neither. */
static hd_status flush_output(hd_err *err)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    if (fflush(stdout) == 0 && !ferror(stdout)) return HD_OK;
    int why = errno;
    bool reader_left = poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
    if (reader_left) return HD_OK;
    errno = why;
    return hd_fail_errno(err, "write: standard output");
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    if (argc < 2) {
        print_help(stderr);
        return hd_fail(err, HD_USAGE, "verb: none given: try hadal chat MODEL");
    }
    const char *verb = argv[1];
    if (strcmp(verb, "--version") == 0) {
        puts("hadal " HADAL_VERSION);
        return HD_OK;
    }
    const hd_command *cmd = strcmp(verb, "help") == 0 && argc > 2 ? find(argv[2]) : find(verb);
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0 || (strcmp(verb, "help") == 0 && argc == 2)) {
        print_help(stdout);
        return HD_OK;
    }
    if (!cmd)
        return hd_fail(err, HD_USAGE, "verb '%s': not known: hadal --help lists them",
                       strcmp(verb, "help") == 0 ? argv[2] : verb);
    if (strcmp(verb, "help") == 0 || asks_help(argc - 1, argv + 1)) {
        fputs(cmd->help, stdout);
        return HD_OK;
    }
    return cmd->run(argc - 1, argv + 1, err);
}

int main(int argc, char **argv)
{
    /* Writing to a closed pipe or past a file-size limit then returns an error, which travels
     * up like any other. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    hd_err err = {0};
    hd_status st = run(argc, argv, &err);
    if (st == HD_OK) st = flush_output(&err);
    if (st == HD_OK) return 0;
    fprintf(stderr, "hadal: %s\n", err.msg);
    return st == HD_USAGE ? 2 : 1;
}
