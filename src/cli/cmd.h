/* The command table: one file cmd_<verb>.c and one line in main.c add a verb. */
#ifndef HD_CLI_CMD_H
#define HD_CLI_CMD_H

#include "base/err.h"

typedef struct {
    const char *verb;
    const char *summary; // one line for `hadal --help`
    const char *help;    // options and examples for `hadal VERB --help`
    /* argv[0] is the verb.  Returns HD_OK or a failure with err filled; main prints it and chooses
     * the exit status. */
    hd_status (*run)(int argc, char **argv, hd_err *err);
} hd_command;

/* main's table, NULL at its end. */
extern const hd_command hd_cmd_pretrain, hd_cmd_sft, hd_cmd_distil, hd_cmd_runs, hd_cmd_plot;
extern const hd_command *const hd_commands[];

extern const hd_command hd_cmd_backup, hd_cmd_bench, hd_cmd_chat, hd_cmd_completion, hd_cmd_cost, hd_cmd_data, hd_cmd_export, hd_cmd_generate, hd_cmd_inspect, hd_cmd_models,
    hd_cmd_pull, hd_cmd_quantize, hd_cmd_score, hd_cmd_serve, hd_cmd_tokenize, hd_cmd_tokenizer, hd_cmd_top;

#endif
