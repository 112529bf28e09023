/* LD_PRELOAD this: the HADAL_FAIL_AT-th allocation of the process fails, the others work.
 *
 * An allocation is a call of malloc, calloc, realloc, aligned_alloc, posix_memalign, memalign or an anonymous
 * mmap made by the program or a library (glibc's own use of mmap inside malloc is not seen, nor counted).
 * Counting starts when this library is initialised, after the dynamic loader's own work.  HADAL_FAIL_COUNT
 * names a file for the number of allocations, written at the process's end. */
#pragma GCC visibility push(default) // the build hides what is not exported; these names are to stand before the library's
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
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

static atomic_long made; // allocations so far
static long fail_at;     // the one that fails; 0: none

__attribute__((constructor)) static void start(void)
{
    const char *at = getenv("HADAL_FAIL_AT");
    atomic_store(&made, 0);
    fail_at = at ? atol(at) : 0;
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("HADAL_FAIL_COUNT");
    long n = atomic_load(&made);
    int fd = path ? open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666) : -1;
    if (fd < 0) return;
    dprintf(fd, "%ld\n", n);
    close(fd);
}

/* Is this the one? */
static int fails(void)
{
    if (atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1 != fail_at) return 0;
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
