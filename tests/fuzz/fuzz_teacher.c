/* The reader of a teacher's probabilities.  Its checksums would stop nearly every input at the door, so each
 * is tried as it comes and once more with sums that are right. */
#include "base/crc32c.h"
#include "train/teacher.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 64, RECORD = 16 };

static void use(const uint8_t *p, size_t n)
{
    hd_err err = {0};
    hd_teacher_file *f = NULL;
    char path[64];
    int fd = memfd_create("teacher", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n) abort();
    if (hd_teacher_file_open(&f, path, &err) == HD_OK) {
        const hd_teacher_meta *m = hd_teacher_file_meta(f);
        size_t list = m->n_records > 0 ? (size_t)m->rows * (size_t)m->n_top : 0; // then it is in the file
        int32_t *id = calloc(list + 1, sizeof *id);
        float *logp = calloc(list + 1, sizeof *logp);
        uint32_t print;
        for (int64_t i = 0; id && logp && i < m->n_records; i++) {
            memcpy(&print, p + HEAD + (size_t)i * (RECORD + 8 * list) + 8, 4);
            if (hd_teacher_file_get(f, i, print, id, logp, &err) != HD_OK) continue;
            for (size_t k = 0; k < list; k++)
                if (id[k] < -1 || id[k] >= m->n_vocab || (id[k] >= 0 && !(logp[k] <= 1e-3f))) abort();
            if (hd_teacher_file_get(f, i, print + 1, id, logp, &err) == HD_OK) abort();
        }
        if (hd_teacher_file_get(f, m->n_records, 0, id, logp, &err) == HD_OK || hd_teacher_file_get(f, -1, 0, id, logp, &err) == HD_OK) abort();
        free(id);
        free(logp);
    }
    hd_teacher_file_close(f);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = calloc(1, size ? size : 1);
    int32_t form[2]; // rows, ids a row
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    use(copy, size);
    if (size >= HEAD) {
        uint32_t sum = hd_crc32c(0, copy, HEAD - 4);
        memcpy(copy + HEAD - 4, &sum, 4);
        memcpy(form, copy + 24, sizeof form);
        uint64_t lists = form[0] > 0 && form[1] > 0 ? (uint64_t)form[0] * (uint64_t)form[1] * 8 : size;
        for (size_t at = HEAD; size - at >= RECORD && lists <= size - at - RECORD; at += RECORD + lists) {
            sum = hd_crc32c(hd_crc32c(0, copy + at, 12), copy + at + RECORD, lists);
            memcpy(copy + at + 12, &sum, 4);
        }
        use(copy, size);
    }
    free(copy);
    return 0;
}
