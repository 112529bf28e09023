/* Preloaded: fsync and fdatasync fail as on a dying disk while the file $HADAL_FAILSYNC exists. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void)
{
    const char *path = getenv("HADAL_FAILSYNC");
    if (!path || access(path, F_OK) != 0) return 0;
    errno = EIO;
    return 1;
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return fails() ? -1 : real(fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails() ? -1 : real(fd);
}
