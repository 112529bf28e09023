/* hadal completion: the bash completion script, made from the table of verbs.
 *
 * A verb's options are read from its help, where a person finds them: what the help does not name is not
 * completed. Words after an option are known for the few that take one of a list; everything else is
 * completed as a file. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "model/chat.h"
#include "model/quantize.h"

static bool is_name(char c) { return islower((unsigned char)c) || isdigit((unsigned char)c) || c == '-'; }

/* Every --name of a help text before its examples, each with a space before it. */
static void print_options(const char *help)
{
    const char *end = strstr(help, "\nexamples:");
    if (!end) end = help + strlen(help);
    printf("--help");
    for (const char *s = help; (s = strstr(s, "--")) && s < end;) {
        size_t n = 2;
        while (is_name(s[n])) n++;
        if (n > 3 && isspace((unsigned char)s[-1]) && strncmp(s, "--help", n) != 0)
            printf(" %.*s", (int)n, s);
        s += n;
    }
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    int n = 0;
    hd_status st = hd_opts_parse(NULL, 0, argc, argv, &n, err);
    if (st != HD_OK) return st;
    if (n > 1 || (n == 1 && strcmp(argv[1], "bash") != 0))
        return hd_fail(err, HD_USAGE, "completion: '%.40s': bash alone is known", argv[n]);
    printf("# bash completion of hadal, written by `hadal completion`\n"
           "_hadal() {\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} "
           "words=\n"
           "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
           "        words='--help --version help");
    for (int i = 0; hd_commands[i]; i++) printf(" %s", hd_commands[i]->verb);
    printf("'\n    elif [ \"$verb\" = help ]; then\n        words='");
    for (int i = 0; hd_commands[i]; i++) printf("%s%s", i ? " " : "", hd_commands[i]->verb);
    printf("'\n    elif [ \"$prev\" = --cache-type ]; then words='f16 bf16 q8_0 f32'\n"
           "    elif [ \"$prev\" = --draft ]; then words='lookup mtp'\n"
           "    elif [ \"$prev\" = --chat-format ]; then words='");
    for (int i = 0; hd_chat_at(i); i++) printf("%s%s", i ? " " : "", hd_chat_name(hd_chat_at(i)));
    printf("'\n    elif [ \"$verb\" = quantize ] && [[ $prev = --type || $prev = -t ]]; then words='");
    for (int i = 0; hd_quant_mix_at(i); i++) printf("%s%s", i ? " " : "", hd_quant_mix_at(i)->name);
    printf("'\n    elif [[ $cur = -* ]]; then\n        case $verb in\n");
    for (int i = 0; hd_commands[i]; i++) {
        printf("            %s) words='", hd_commands[i]->verb);
        print_options(hd_commands[i]->help);
        printf("' ;;\n");
    }
    /* No words, or none that fits: -o default completes file names. */
    printf("        esac\n    fi\n"
           "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
           "}\n"
           "complete -o default -F _hadal hadal\n");
    return HD_OK;
}

const hd_command hd_cmd_completion = {
    .verb = "completion",
    .summary = "print the completion script for bash",
    .help = "usage: hadal completion [bash]\n\n"
            "`make install` puts the script where bash looks for it; by hand:\n\n"
            "examples:\n"
            "  source <(hadal completion bash)\n"
            "  hadal completion > ~/.local/share/bash-completion/completions/hadal\n",
    .run = run,
};
