/* Files: only regular ones are opened, and a replaced file is the old one or the new one at every moment. */
#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static hd_err err;

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
}

static bool holds(const char *path, const char *text)
{
    hd_buf b;
    hd_buf_init(&b, 1 << 20);
    bool same = hd_file_read(&b, path, &err) == HD_OK && b.len == strlen(text) && memcmp(b.data, text, b.len) == 0;
    hd_buf_free(&b);
    return same;
}

/* Entries of the working folder, so that a forgotten temporary file shows. */
static int n_files(void)
{
    int n = 0;
    DIR *d = opendir(".");
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void refused(const char *path, const char *why)
{
    hd_map m;
    hd_buf b;
    hd_buf_init(&b, 100);
    CHECK(hd_map_open(&m, path, &err) == HD_IO && m.data == NULL && m.size == 0, "%s", path);
    CHECK(strstr(err.msg, path) && strstr(err.msg, why), "%s", err.msg);
    hd_map_close(&m);
    CHECK(hd_file_read(&b, path, &err) == HD_IO && b.data == NULL, "%s", path);
    hd_buf_free(&b);
}

static void opened(void)
{
    hd_map m;
    CHECK(mkfifo("fifo", 0600) == 0 && mkdir("folder", 0700) == 0);
    alarm(10); // a hang is a failure too
    refused("fifo", "pipe");
    refused("folder", "folder");
    refused("/dev/random", "device");
    refused("/dev/null", "device");
    refused("missing", "No such file");
    refused("", "No such file");
    refused("folder/../missing/x", "No such file");
    alarm(0);
    CHECK(hd_is_dir("folder") && !hd_is_file("folder") && !hd_is_dir("fifo") && !hd_is_file("fifo"));
    CHECK(!hd_is_dir("missing") && !hd_is_file("missing"));

    put("empty", "");
    CHECK_OK(hd_map_open(&m, "empty", &err));
    CHECK(m.data == NULL && m.size == 0);
    hd_map_release(&m, NULL, 0);
    hd_map_close(&m);
    CHECK(holds("empty", ""));
    put("text", "some text");
    CHECK(hd_is_file("text") && holds("text", "some text"));
    CHECK_OK(hd_map_open(&m, "text", &err));
    CHECK(m.size == 9 && memcmp(m.data, "some text", 9) == 0);
    hd_map_close(&m);
    hd_map_close(&m);

    hd_buf b;
    hd_buf_init(&b, 8);
    CHECK(hd_file_read(&b, "text", &err) == HD_LIMIT && strstr(err.msg, "text"), "%s", err.msg);
    CHECK(hd_file_read(&b, "/proc/self/status", &err) == HD_LIMIT); // says size 0, holds more
    hd_buf_free(&b);
}

static size_t resident_pages(const hd_map *m)
{
    long page = sysconf(_SC_PAGESIZE);
    size_t n = 0, kb = 0;
    char line[256], start[32];
    snprintf(start, sizeof start, "%lx-", (unsigned long)(uintptr_t)m->data);
    FILE *f = fopen("/proc/self/smaps", "r"); // mincore would tell of the page cache, not of this process
    for (bool ours = false; f && fgets(line, sizeof line, f);) {
        if (strncmp(line, start, strlen(start)) == 0) ours = true;
        if (ours && sscanf(line, "Rss: %zu kB", &kb) == 1) {
            n = kb * 1024 / (size_t)page;
            break;
        }
    }
    if (f) fclose(f);
    return n;
}

/* A file in large writes lies in large pieces in the system's copy; a byte of it must not
 * bring in a huge page. */
static void scattered(void)
{
    enum { SIZE = 8 << 20 };
    hd_map m;
    char *block;
    CHECK_OK(hd_alloc(&block, SIZE, &err));
    CHECK_OK(hd_file_write("rows", block, SIZE, &err));
    free(block);
    CHECK_OK(hd_map_open(&m, "rows", &err));
    unsigned sum = 0;
    for (size_t i = SIZE / 8; i < SIZE; i += SIZE / 4) sum += ((const volatile uint8_t *)m.data)[i];
    size_t got = resident_pages(&m) * (size_t)sysconf(_SC_PAGESIZE);
    CHECK(sum == 0 && got > 0 && got <= 4 * (256 << 10), "%zu bytes for four", got);
    hd_map_close(&m);
    remove("rows");
}

static void released(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 64;
    hd_map m;
    FILE *f = fopen("pages", "w");
    for (size_t i = 0; f && i < n * page; i++) fputc((int)(i / page), f);
    if (f) fclose(f);
    CHECK_OK(hd_map_open(&m, "pages", &err));
    unsigned sum = 0;
    for (size_t i = 0; i < m.size; i += page) sum += m.data[i];
    CHECK(sum == 63 * 64 / 2 && resident_pages(&m) == n, "%zu pages", resident_pages(&m));
    hd_map_release(&m, m.data + 10 * page + 1, 10 * page); // covers 9 whole pages
    CHECK(resident_pages(&m) == n - 9, "%zu pages", resident_pages(&m));
    CHECK(m.data[15 * page] == 15); // and the bytes come back when asked for
    hd_map_release(&m, m.data + 50 * page, SIZE_MAX);
    CHECK(resident_pages(&m) <= 50);
    hd_map_release(&m, m.data + m.size + 1, 10); // not ours: nothing happens
    hd_map_close(&m);
}

static void replaced(void)
{
    hd_newfile f;
    struct stat sb;
    int files = n_files();
    CHECK_OK(hd_newfile_begin(&f, "new", &err));
    CHECK_OK(hd_newfile_write(&f, "first ", 6, &err));
    CHECK_OK(hd_newfile_write(&f, "half", 4, &err));
    CHECK(f.offset == 10 && !hd_is_file("new"));
    hd_newfile_abort(&f);
    hd_newfile_abort(&f);
    CHECK(!hd_is_file("new") && n_files() == files);

    CHECK_OK(hd_newfile_begin(&f, "new", &err));
    CHECK_OK(hd_newfile_write(&f, "one", 3, &err));
    CHECK_OK(hd_newfile_commit(&f, &err));
    hd_newfile_abort(&f);
    CHECK(holds("new", "one") && n_files() == files + 1);

    CHECK(chmod("new", 0600) == 0 && symlink("new", "link") == 0);
    CHECK_OK(hd_newfile_begin(&f, "link", &err));
    CHECK_OK(hd_newfile_write(&f, "two", 3, &err));
    CHECK(holds("new", "one"));
    CHECK_OK(hd_newfile_commit(&f, &err));
    CHECK(holds("new", "two") && lstat("link", &sb) == 0 && S_ISLNK(sb.st_mode));
    CHECK(stat("new", &sb) == 0 && (sb.st_mode & 0777) == 0600);

    CHECK(hd_newfile_begin(&f, "folder", &err) == HD_IO && strstr(err.msg, "folder"));
    CHECK(hd_newfile_begin(&f, "/dev/null", &err) == HD_IO);
    CHECK(hd_newfile_begin(&f, "missing/x", &err) == HD_IO && strstr(err.msg, "missing/x"), "%s", err.msg);
    hd_newfile_abort(&f);
    int before_fd = fcntl(0, F_GETFD);
    hd_newfile zero = {0};
    hd_newfile_abort(&zero); // must not close descriptor 0
    CHECK(fcntl(0, F_GETFD) == before_fd);
    CHECK(n_files() == files + 2);
}

/* The writer dies by kill -9 after `at` bytes: the old file is whole. */
static void killed(size_t at)
{
    hd_newfile f;
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        char block[4096];
        memset(block, 'x', sizeof block);
        if (hd_newfile_begin(&f, "new", &err) != HD_OK) _exit(1);
        for (size_t n = 0; n < at; n += sizeof block) hd_newfile_write(&f, block, sizeof block, &err);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(holds("new", "two"));
    CHECK_OK(hd_newfile_begin(&f, "new", &err)); // what the dead one left is in nobody's way
    hd_newfile_abort(&f);
}

/* A limit on file size stands for the full disk: write() comes up short, then fails. */
static void disk_full(void)
{
    int status = 0, files = n_files();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        hd_newfile f;
        char block[3000];
        memset(block, 'x', sizeof block);
        struct rlimit small = {10000, 10000};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &small);
        hd_status st = hd_newfile_begin(&f, "new", &err);
        for (int i = 0; i < 10 && st == HD_OK; i++) st = hd_newfile_write(&f, block, sizeof block, &err);
        bool told = st == HD_IO && strstr(err.msg, "write: ") && strstr(err.msg, "new: ");
        hd_newfile_abort(&f);
        _exit(told ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    CHECK(holds("new", "two") && n_files() == files);
}

int main(void)
{
    char dir[] = "/tmp/hadal-file-XXXXXX", cmd[64];
    if (!mkdtemp(dir) || chdir(dir) != 0) return 1;
    opened();
    released();
    scattered();
    replaced();
    killed(0);
    killed(1 << 20);
    disk_full();
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    CHECK(system(cmd) == 0);
    return hd_test_end();
}
