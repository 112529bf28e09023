/* The GGUF reader and the configuration read from its keys: the bytes are a file. */
#include "model/gguf.h"
#include "model/model.h"

#include "fuzz/model_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void visit_keys(const hd_gguf *g)
{
    for (int64_t k = 0; k < hd_gguf_n_kv(g); k++) {
        const hd_gguf_kv *kv = hd_gguf_kv_at(g, k);
        size_t pos = 0;
        hd_gguf_str s;
        volatile char sink = 0;
        (void)sink; // as in fuzz_visit
        double f;
        int64_t i;
        while (hd_gguf_arr_str(kv, &pos, &s))
            if (s.n) sink ^= s.p[0] ^ s.p[s.n - 1];
        for (uint64_t e = 0; e < kv->n && e < 100; e++) {
            hd_gguf_arr_f64(kv, e, &f);
            hd_gguf_arr_i64(kv, e, &i);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err;
    hd_source *s = NULL;
    char path[40];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (hd_source_open_list(&s, path, &err) == HD_OK) {
        visit_keys(hd_source_gguf(s));
        fuzz_visit(s);
        hd_source_close(s);
    }
    close(fd);
    return 0;
}
