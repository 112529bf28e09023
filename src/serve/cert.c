/* A certificate of one's own, for phones on the same network: P-256, signed by itself, for addresses
 * and names given.
 *
 * Nobody vouches for it, so a browser asks once; after that it notices when another server answers.  So
 * the pair is kept and used again as long as it fits: a new one at every start would teach people to
 * click warnings away. */
#include <arpa/inet.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "serve/cert.h"
#include "serve/openssl.h"

enum { DAYS = 397, LEFT_DAYS = 7 }; // what browsers take at most; renewed before it ends

static bool is_address(const char *s)
{
    uint8_t a[16];
    return inet_pton(AF_INET, s, a) == 1 || inet_pton(AF_INET6, s, a) == 1;
}

/* A file's bytes to read PEM from; the caller frees both.  NULL: there is no such file. */
static BIO *open_pem(const hd_openssl *o, hd_buf *pem, const char *path)
{
    hd_buf_init(pem, 1 << 20);
    return hd_file_read(pem, path, NULL) == HD_OK && pem->data ? o->BIO_new_mem_buf(pem->data, (int)pem->len) : NULL;
}

/* Is the key in the file this certificate's?  (The two files are written one after the other.) */
static bool has_key(const hd_openssl *o, X509 *x, const char *key_file)
{
    hd_buf pem;
    BIO *bio = open_pem(o, &pem, key_file);
    EVP_PKEY *key = bio ? o->PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL; // "": nobody is asked for a word
    const bool ok = key && o->X509_check_private_key(x, key) == 1;
    o->EVP_PKEY_free(key);
    o->BIO_free(bio);
    hd_buf_free(&pem);
    return ok;
}

/* Does the certificate in the file last, cover every name, and belong to the key? */
static bool fits(const hd_openssl *o, const char *cert_file, const char *key_file, const char *const *name)
{
    hd_buf pem;
    BIO *bio = open_pem(o, &pem, cert_file);
    X509 *x = bio ? o->PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    bool ok = x && has_key(o, x, key_file);
    if (ok) {
        time_t then = time(NULL) + LEFT_DAYS * 86400;
        ok = o->X509_cmp_time(o->X509_get0_notAfter(x), &then) > 0;
        for (int i = 0; name[i]; i++)
            ok = ok && (is_address(name[i]) ? o->X509_check_ip_asc(x, name[i], 0)
                                            : o->X509_check_host(x, name[i], 0, 0, NULL)) == 1;
    }
    o->X509_free(x);
    o->BIO_free(bio);
    hd_buf_free(&pem);
    return ok;
}

static bool add_extension(const hd_openssl *o, X509 *x, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    o->X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    X509_EXTENSION *e = o->X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e && o->X509_add_ext(x, e, -1) == 1;
    o->X509_EXTENSION_free(e);
    return ok;
}

/* "IP:192.168.1.5,DNS:localhost" */
static bool add_names(const hd_openssl *o, X509 *x, const char *const *name)
{
    hd_buf b;
    hd_buf_init(&b, 4096);
    bool ok = name[0] != NULL;
    for (int i = 0; ok && name[i]; i++)
        ok = hd_buf_addf(&b, NULL, "%s%s:%s", i ? "," : "", is_address(name[i]) ? "IP" : "DNS", name[i]) ==
             HD_OK;
    ok = ok && add_extension(o, x, NID_subject_alt_name, b.data);
    hd_buf_free(&b);
    return ok;
}

static X509 *make(const hd_openssl *o, EVP_PKEY *key, const char *const *name)
{
    X509 *x = o->X509_new();
    uint64_t serial = 0;
    X509_NAME *subject = x ? o->X509_get_subject_name(x) : NULL;
    bool ok = x && o->RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 && o->X509_set_version(x, 2) == 1 &&
              o->ASN1_INTEGER_set_uint64(o->X509_get_serialNumber(x), serial >> 1 | 1) == 1 &&
              o->X509_gmtime_adj(o->X509_getm_notBefore(x), -3600) &&
              o->X509_gmtime_adj(o->X509_getm_notAfter(x), (long)DAYS * 86400) && o->X509_set_pubkey(x, key) == 1 &&
              o->X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)"hadal", -1, -1,
                                         0) == 1 &&
              o->X509_set_issuer_name(x, subject) == 1 &&
              add_extension(o, x, NID_basic_constraints, "critical,CA:FALSE") &&
              add_extension(o, x, NID_key_usage, "critical,digitalSignature") &&
              add_extension(o, x, NID_ext_key_usage, "serverAuth") && add_names(o, x, name) &&
              o->X509_sign(x, key, o->EVP_sha256()) > 0;
    if (!ok) {
        o->X509_free(x);
        return NULL;
    }
    return x;
}

/* The certificate, or the key when there is none, into a file that its owner alone can read. */
static hd_status write_pem(const hd_openssl *o, const char *path, X509 *x, EVP_PKEY *key, hd_err *err)
{
    hd_status st;
    hd_newfile f = {0};
    char *text;
    BIO *bio = o->BIO_new(o->BIO_s_mem());
    int ok = !bio ? 0
             : x  ? o->PEM_write_bio_X509(bio, x)
                  : o->PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    if (!ok) HD_TRY(hd_fail(err, HD_NOMEM, "certificate: %s: not written", path));
    long n = o->BIO_ctrl(bio, BIO_CTRL_INFO, 0, &text);
    HD_TRY(hd_newfile_begin(&f, path, err));
    if (fchmod(f.fd, 0600) != 0) HD_TRY(hd_fail_errno(err, "certificate: %s", path));
    HD_TRY(hd_newfile_write(&f, text, (size_t)n, err));
    HD_TRY(hd_newfile_commit(&f, err));
fail:
    hd_newfile_abort(&f);
    o->BIO_free(bio);
    return st;
}

hd_status hd_cert_ready(const char *cert_file, const char *key_file, const char *const *name, hd_err *err)
{
    hd_status st = HD_OK;
    EVP_PKEY *key = NULL;
    X509 *x = NULL;
    const hd_openssl *o = hd_openssl_open(err);
    if (!o) return HD_IO;
    if (fits(o, cert_file, key_file, name)) {
        o->ERR_clear_error();
        return HD_OK;
    }
    key = o->EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    x = key ? make(o, key, name) : NULL;
    if (!x) HD_TRY(hd_fail(err, HD_IO, "certificate: OpenSSL could not make one"));
    HD_TRY(write_pem(o, key_file, NULL, key, err));
    HD_TRY(write_pem(o, cert_file, x, NULL, err));
fail:
    o->X509_free(x);
    o->EVP_PKEY_free(key);
    o->ERR_clear_error();
    return st;
}
