/* hadal chat on a pseudo-terminal, as a person sees it.  Needs $HADAL and $HADAL_TEST_MODEL (tests/run sets
 * them). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "test.h"

enum { PATIENCE_S = 30 }; // under the sanitizers on a busy machine; a test that waits for it has failed

static int tty;
static pid_t child;
static hd_buf seen; // since the last match
static char dir[] = "/tmp/hadal-chat-XXXXXX";

static void start(char *const argv[])
{
    struct winsize size = {.ws_row = 24, .ws_col = 100};
    tty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(tty >= 0 && grantpt(tty) == 0 && unlockpt(tty) == 0);
    ioctl(tty, TIOCSWINSZ, &size);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        setsid();
        int side = open(ptsname(tty), O_RDWR);
        for (int fd = 0; fd < 3; fd++) dup2(side, fd);
        setenv("TERM", "xterm", 1);
        setenv("HOME", dir, 1);
        setenv("XDG_STATE_HOME", dir, 1);
        setenv("LANG", "C", 1); // letters must work all the same
        execv(argv[0], argv);
        _exit(127);
    }
    CHECK(child > 0);
}

static void type(const char *s) { CHECK(write(tty, s, strlen(s)) == (ssize_t)strlen(s)); }

/* Read until `what` is seen; forget all up to its end. */
static bool expect(const char *what)
{
    double end = hd_now_s() + PATIENCE_S;
    for (;;) {
        char *at = seen.data ? strstr(seen.data, what) : NULL;
        if (at) {
            size_t used = (size_t)(at - seen.data) + strlen(what);
            memmove(seen.data, seen.data + used, seen.len - used + 1);
            seen.len -= used;
            return true;
        }
        char part[4096];
        struct pollfd p = {.fd = tty, .events = POLLIN};
        double left = end - hd_now_s();
        if (left <= 0 || poll(&p, 1, (int)(left * 1000)) <= 0) return false;
        ssize_t n = read(tty, part, sizeof part);
        if (n <= 0) return false; // the program has ended
        for (ssize_t i = 0; i < n; i++)
            if (part[i] == 0) part[i] = '?';
        if (hd_buf_add(&seen, part, (size_t)n, NULL) != HD_OK) return false;
    }
}

#define SEE(what) CHECK(expect(what), "\"%s\" is not in: %.600s", what, seen.data ? seen.data : "")
#define PROMPT    "> \033[?2004h" // the second part comes when libedit reads

/* The exit status, once all is read. */
static int leave(void)
{
    int status = 0;
    char part[4096];
    double end = hd_now_s() + PATIENCE_S;
    for (;;) {
        struct pollfd p = {.fd = tty, .events = POLLIN};
        double left = end - hd_now_s();
        if (left <= 0 || poll(&p, 1, (int)(left * 1000)) <= 0) { // it does not leave by itself
            kill(child, SIGKILL);
            break;
        }
        if (read(tty, part, sizeof part) <= 0) break;
    }
    if (waitpid(child, &status, 0) < 0) return -1;
    close(tty);
    hd_buf_clear(&seen);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static void test_talking(const char *hadal, const char *model)
{
    char save[64], command[96];
    snprintf(save, sizeof save, "%s/talk.json", dir);
    char *const argv[] = {(char *)(uintptr_t)hadal,
                          "chat",
                          (char *)(uintptr_t)model,
                          "--temp",
                          "0",
                          "--ctx",
                          "400",
                          "-n",
                          "24",
                          NULL};
    start(argv);
    SEE("a context of 400 ids");
    SEE(PROMPT);
    type("/help\r");
    SEE("/retry");
    SEE(PROMPT);
    type("Say hello.\r");
    SEE("of 400 left]");
    SEE(PROMPT);
    type("/retry\r");
    SEE("of 400 left]");
    SEE(PROMPT);
    type("caf\xc3\xa9 \xff\r"); // a letter of two bytes, and a byte that is none
    SEE("of 400 left]");
    SEE(PROMPT);
    type("\033[200~one\rtwo\033[201~\r"); // a paste of two lines is one message
    SEE("of 400 left]");
    SEE(PROMPT);
    type("\"\"\"\r");
    SEE("... ");
    type("/no command\r");
    SEE("... ");
    type("last\"\"\"\r");
    SEE("of 400 left]");
    SEE(PROMPT);
    type("joined \\\r");
    SEE("... ");
    type("lines\r");
    SEE("of 400 left]");
    SEE(PROMPT);
    type("/nonsense\r");
    SEE("hadal: /nonsense: not known");
    SEE(PROMPT);
    snprintf(command, sizeof command, "/save %s\r", save);
    type(command);
    SEE("saved 10 messages");
    SEE(PROMPT);
    type("forgotten\003");
    SEE("^C");
    SEE("Ctrl-C again");
    SEE(PROMPT);
    type("\003");
    CHECK(leave() == 0);

    hd_buf b;
    hd_buf_init(&b, 1 << 20);
    hd_err err = {0};
    FILE *f = fopen(save, "r");
    CHECK(f != NULL);
    char part[4096];
    for (size_t n; f && (n = fread(part, 1, sizeof part, f)) > 0;) CHECK_OK(hd_buf_add(&b, part, n, &err));
    if (f) fclose(f);
    CHECK(b.data && strstr(b.data, "caf\xc3\xa9 \xef\xbf\xbd\""));
    CHECK(b.data && strstr(b.data, "\"one\\ntwo\""));
    CHECK(b.data && strstr(b.data, "\"/no command\\nlast\""));
    CHECK(b.data && strstr(b.data, "\"joined \\nlines\""));
    CHECK(b.data && !strstr(b.data, "forgotten"));
    hd_buf_free(&b);
}

static void test_history(const char *hadal, const char *model)
{
    char file[64];
    struct stat st;
    snprintf(file, sizeof file, "%s/hadal/history", dir);
    CHECK(stat(file, &st) == 0 && (st.st_mode & 077) == 0 && st.st_size > 0);
    char *const argv[] = {(char *)(uintptr_t)hadal, "chat", (char *)(uintptr_t)model, "-c", "200", NULL};
    start(argv);
    SEE(PROMPT);
    type("\033[A\033[A"); // up twice: before /save there was /nonsense
    SEE("/nonsense");
    type("\003");
    SEE(PROMPT);
    type("\004");
    CHECK(leave() == 0);
}

static void test_interrupt(const char *hadal, const char *model)
{
    char *const argv[] = {
        (char *)(uintptr_t)hadal, "chat",   (char *)(uintptr_t)model, "--temp", "0",
        "--logit-bias",           "2=-inf", "--no-history",           NULL}; // <|im_end|> forbidden: the
                                                                             // answer would go on
    start(argv);
    SEE(PROMPT);
    type("Tell me about the sea.\r");
    SEE("\033[?2004l"); // the line is read
    SEE(" ");           // the answer has words
    type("\003");
    SEE("[stopped]");
    SEE(PROMPT);
    type("/quit\r");
    CHECK(leave() == 0);
}

static void test_full_context(const char *hadal, const char *model)
{
    char long_question[1024] = "";
    for (int i = 0; i < 40; i++) strcat(long_question, "red blue ");
    strcat(long_question, "\r");
    char *const argv[] = {(char *)(uintptr_t)hadal,
                          "chat",
                          (char *)(uintptr_t)model,
                          "--temp",
                          "0",
                          "-c",
                          "160",
                          "-n",
                          "40",
                          "--system",
                          "Be short.",
                          NULL};
    start(argv);
    SEE(PROMPT);
    type(long_question); // 80 ids or more: fits once, not twice
    SEE("of 160 left]");
    SEE(PROMPT);
    type(long_question);
    SEE("The context is full");
    SEE("[y/N]");
    type("n\r");
    SEE("hadal: chat: context: full");
    SEE(PROMPT);
    type(long_question);
    SEE("[y/N]");
    type("y\r");
    SEE("(dropped the oldest");
    SEE("of 160 left]");
    SEE(PROMPT);
    type("/system\r");
    SEE("Be short."); // was not dropped
    SEE(PROMPT);
    kill(child, SIGTERM); // at the prompt
    CHECK(leave() == 0);
}

int main(void)
{
    const char *hadal = getenv("HADAL"), *model = getenv("HADAL_TEST_MODEL");
    if (!hadal || !model || !*model) {
        puts("no model at hand: $HADAL_TEST_MODEL");
        return hd_test_end();
    }
    hd_buf_init(&seen, 16 << 20);
    signal(SIGPIPE, SIG_IGN);
    CHECK(mkdtemp(dir) != NULL);
    test_talking(hadal, model);
    test_history(hadal, model);
    test_interrupt(hadal, model);
    test_full_context(hadal, model);
    hd_buf_free(&seen);
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    CHECK(system(command) == 0);
    return hd_test_end();
}
