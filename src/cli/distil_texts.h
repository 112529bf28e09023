/* hadal distil --make-texts: a teacher's answers to prompts. */
#ifndef HD_CLI_DISTIL_TEXTS_H
#define HD_CLI_DISTIL_TEXTS_H

#include "base/err.h"

bool hd_asks_for_texts(int argc, char **argv); // --make-texts is among the options
hd_status hd_distil_texts(int argc, char **argv, hd_err *err);
#define HD_DISTIL_TEXTS_HELP                                                                                 \
    "hadal distil --make-texts MODEL PROMPTS.jsonl -o OUT.jsonl [options]\n\n"                        \
    "The teacher's answers to prompts, as conversations to train on.  A line of PROMPTS.jsonl has a "        \
    "prompt, a question, or\n"                                                                               \
    "messages.  The same command goes on with a file that was broken off, to the same texts.\n\n"            \
    "  -o, --output FILE        conversations, one a line, in the order of the prompts\n"                    \
    "  -n, --max-tokens N       of an answer (1024); one that does not end by itself is left out\n"          \
    "  -j, --at-once N          answers made together (8)\n"                                                 \
    "      --temp T, --top-p P, --seed N   sampling (what the model asks for, seed 0)\n"                     \
    "      --thinking on|off    for formats with a switch\n"                                                 \
    "      --chat-format NAME   instead of the one that the model's template tells\n"                        \
    "      --ctx N              positions of one conversation\n"                                             \
    "  -t, --threads N          (all cores)\n"                                                               \
    "      --json               the report as JSON\n"

#endif
