/* For a phone on the same network: nothing to type, nothing that a neighbour can read.
 *
 * The link's token lets one browser in and is void from then on; the server prints the next one.  The
 * certificate is nobody's but ours, so the phone's browser asks once whether to go on. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <qrencode.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/lines.h"
#include "cli/serve_lan.h"
#include "serve/cert.h"

/* ---- The address ---- */

/* 10/8, 172.16/12, 192.168/16: better than others, which may be a provider's. */
static bool is_private(uint32_t a)
{
    return a >> 24 == 10 || a >> 20 == (172 << 4 | 1) || a >> 16 == (192 << 8 | 168);
}

hd_status hd_lan_address(char out[48], hd_err *err)
{
    struct ifaddrs *all;
    bool found = false;
    if (getifaddrs(&all) != 0) return hd_fail_errno(err, "network: addresses");
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK) ||
            !(i->ifa_flags & IFF_UP))
            continue;
        struct in_addr a = ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr;
        bool better = !found || is_private(ntohl(a.s_addr));
        if (better && inet_ntop(AF_INET, &a, out, 48)) {
            found = true;
            if (is_private(ntohl(a.s_addr))) break;
        }
    }
    freeifaddrs(all);
    return found ? HD_OK
                 : hd_fail(err, HD_IO, "network: this machine has no address that others could reach");
}

hd_status hd_lan_certificate(char **cert, char **key, const char *address, hd_err *err)
{
    hd_status st;
    char path[4096];
    const char *const names[] = {address, "127.0.0.1", "localhost", NULL};
    *cert = *key = NULL;
    if (!hd_state_path(path, sizeof path, "lan-cert.pem"))
        HD_TRY(hd_fail(err, HD_IO, "certificate: no folder to keep it in: set HOME"));
    HD_TRY(hd_strdup(cert, path, err));
    if (!hd_state_path(path, sizeof path, "lan-key.pem"))
        HD_TRY(hd_fail(err, HD_IO, "certificate: no folder to keep it in: set HOME"));
    HD_TRY(hd_strdup(key, path, err));
    HD_TRY(hd_cert_ready(*cert, *key, names, err));
fail:
    return st;
}

/* ---- The link ---- */

/* Two rows of modules a line of text; black on white whatever the terminal's colours, with the margin
 * that readers need. */
static void show_qr(const QRcode *q)
{
    enum { MARGIN = 3 };
    for (int y = -MARGIN; y < q->width + MARGIN; y += 2) {
        fputs("\033[30;107m", stderr);
        for (int x = -MARGIN; x < q->width + MARGIN; x++) {
            bool in = x >= 0 && x < q->width;
            bool up = in && y >= 0 && y < q->width && (q->data[y * q->width + x] & 1);
            bool down = in && y + 1 >= 0 && y + 1 < q->width && (q->data[(y + 1) * q->width + x] & 1);
            fputs(up && down ? "█" : up ? "▀" : down ? "▄" : " ", stderr);
        }
        fputs("\033[0m\n", stderr);
    }
}

void hd_lan_show(const char *link)
{
    QRcode *q = isatty(STDERR_FILENO) == 1 ? QRcode_encodeString8bit(link, 0, QR_ECLEVEL_L) : NULL;
    printf("%s\n", link);
    fflush(stdout);
    if (q) show_qr(q);
    QRcode_free(q);
    fputs("good for one browser; its warning about the certificate is to be expected once\n", stderr);
}

/* ---- The secret ---- */

static hd_status make_secret(uint8_t out[32], const char *path, hd_err *err)
{
    hd_status st;
    hd_newfile f = {0};
    randombytes_buf(out, 32);
    if (!path) return HD_OK;
    HD_TRY(hd_newfile_begin(&f, path, err));
    if (fchmod(f.fd, 0600) != 0) HD_TRY(hd_fail_errno(err, "login secret: %s", path));
    HD_TRY(hd_newfile_write(&f, out, 32, err));
    HD_TRY(hd_newfile_commit(&f, err));
fail:
    hd_newfile_abort(&f);
    return st;
}

hd_status hd_login_secret(uint8_t out[32], hd_err *err)
{
    char path[4096];
    hd_buf b;
    hd_status st = HD_OK;
    hd_buf_init(&b, 32);
    bool kept = hd_state_path(path, sizeof path, "login-secret");
    if (sodium_init() < 0) return hd_fail(err, HD_IO, "login secret: libsodium does not start");
    if (kept && hd_is_file(path)) st = hd_file_read(&b, path, err);
    if (st == HD_OK && b.len == 32) memcpy(out, b.data, 32);
    else if (st == HD_OK) st = make_secret(out, kept ? path : NULL, err);
    hd_buf_free(&b);
    return st;
}
