/* hadal backup: a copy of the chats while the server runs. */
#include <stdio.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "serve/store.h"

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    int n = 0;
    HD_TRY(hd_opts_parse(NULL, 0, argc, argv, &n, err));
    if (n != 2) return hd_fail(err, HD_USAGE, "backup: two files are needed: hadal backup CHATS COPY");
    HD_TRY(hd_store_backup(argv[1], argv[2], err));
    printf("%s\n", argv[2]);
fail:
    return st;
}

const hd_command hd_cmd_backup = {
    .verb = "backup",
    .summary = "copy the chat page's database while the server runs",
    .help = "usage: hadal backup CHATS COPY\n\n"
            "Copies the database of chats (the file that hadal serve prints when it starts) to COPY, whole and consistent,\n"
            "while the server may be reading and writing it.  COPY is written beside its place, checked, and renamed; an older\n"
            "COPY is replaced only by a good one.  To restore, stop the server and put the copy in the place of the database\n"
            "(remove the files beside it that end in -wal and -shm).\n\n"
            "examples:\n"
            "  hadal backup ~/.local/share/hadal/chats.db /mnt/backup/chats.db\n",
    .run = run,
};
