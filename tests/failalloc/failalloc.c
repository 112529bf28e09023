/* LD_PRELOAD this: the HADAL_FAIL_AT-th allocation of the process fails, the others work.
 *
 * An allocation is a call of malloc, calloc, realloc, aligned_alloc, posix_memalign, memalign or an anonymous mmap made by
 * the program or a library (glibc's own use of mmap inside malloc is not seen, nor counted).  Counting starts
 * when this library is initialised, after the dynamic loader's own work.  When the failure was reached, a file named by HADAL_FAIL_MARK is created, so that a caller that
 * raises n knows when it has passed the last allocation. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* glibc's allocator under its own names: no dlsym, which would allocate. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_long left; // allocations until the one that fails; 0 or less: off
static const char *mark;

__attribute__((constructor)) static void start(void)
{
    const char *at = getenv("HADAL_FAIL_AT");
    mark = getenv("HADAL_FAIL_MARK");
    atomic_store(&left, at ? atol(at) : 0);
}

/* Is this the one? */
static int fails(void)
{
    if (atomic_load_explicit(&left, memory_order_relaxed) <= 0 || atomic_fetch_sub(&left, 1) != 1) return 0;
    int fd = mark ? open(mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0666) : -1;
    if (fd >= 0) close(fd);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t align, size_t n) { return fails() ? NULL : __libc_memalign(align, n); }
void *memalign(size_t align, size_t n) { return fails() ? NULL : __libc_memalign(align, n); }

int posix_memalign(void **out, size_t align, size_t n)
{
    void *p = fails() ? NULL : __libc_memalign(align, n);
    if (!p) return ENOMEM; // *out untouched
    *out = p;
    return 0;
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) && fails()) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}
