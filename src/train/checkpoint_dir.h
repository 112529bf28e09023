/* Inside of checkpoints: paths, checksums, which folders there are.  For checkpoint*.c alone. */
#ifndef HD_TRAIN_CHECKPOINT_DIR_H
#define HD_TRAIN_CHECKPOINT_DIR_H

#include <jansson.h>

#include "base/folder.h"
#include "train/checkpoint.h"

enum { HD_CKPT_PATH = 4096, HD_CKPT_FORMAT = 1 }; // bytes of a path; of trainer.json

hd_status hd_ckpt_path(char *out, const char *dir, const char *name, hd_err *err);    // dir/name
hd_status hd_ckpt_step_path(char *out, const char *dir, int64_t step, hd_err *err);   // dir/step-%08lld
hd_status hd_ckpt_file_crc(uint32_t *crc, uint64_t *bytes, const char *path, hd_err *err);
/* trainer.json's own checksum: of everything in the object but "crc32c". */
hd_status hd_ckpt_json_crc(uint32_t *crc, const json_t *j, hd_err *err);
hd_status hd_ckpt_read_json(json_t **out, const char *path, hd_err *err);             // checked; the caller's to json_decref
/* Every file that trainer.json names: there, as long, with the same checksum. */
hd_status hd_ckpt_check_files(const json_t *j, const char *path, hd_err *err);
/* Remove what a dead process left, and all but `keep` of the steps up to `newest`. */
hd_status hd_ckpt_rotate(const char *dir, int64_t newest, int keep, hd_err *err);

/* The three steps of writing, for one process and for ranks: f->tmp is filled in between. */
hd_status hd_ckpt_begin(hd_newfolder *f, const char *dir, const hd_run_state *s, hd_err *err);
/* comm: of ranks, which all call it at once; NULL where none holds experts of its own. */
hd_status hd_ckpt_part(const char *tmp, int rank, hd_comm *comm, const hd_model *m, const hd_params *p, const hd_optim *o,
                       const char *tokenizer, hd_err *err);
hd_status hd_ckpt_finish(hd_newfolder *f, const char *dir, const hd_run_state *s, int keep, hd_err *err);

#endif
