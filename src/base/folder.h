/* Folders: made, removed, and replaced as a whole. */
#ifndef HD_BASE_FOLDER_H
#define HD_BASE_FOLDER_H

#include "base/file.h"

/* Make a folder and those above it; one that is there already is fine. */
hd_status hd_folder_make(const char *path, hd_err *err);
/* Remove a folder and all in it (links themselves, not what they point to).  One that is
 * not there is fine. */
hd_status hd_folder_remove(const char *path, hd_err *err);
/* Copy a regular file, whole or not at all.  HD_IO when it is not there. */
hd_status hd_file_copy(const char *to, const char *from, hd_err *err);

/* A folder that appears under its name only when whole: begin -> files are written into f.tmp -> commit
 * (everything synced, then renamed); abort, a crash, or a full disk leaves what was there.
 * replace: an earlier folder of that name gives way; without, one that is not empty is refused. */
typedef struct {
    char *path, *tmp; // tmp: path.part-PID
    bool replace;
} hd_newfolder;
hd_status hd_newfolder_begin(hd_newfolder *f, const char *path, bool replace, hd_err *err);
hd_status hd_newfolder_commit(hd_newfolder *f, hd_err *err);
void hd_newfolder_abort(hd_newfolder *f); // after commit, or on a zeroed object: nothing

#endif
