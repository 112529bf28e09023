/* OpenSSL, opened when TLS is first wanted: its two libraries are 2 MB of every process that is linked with
 * them, and only a server with a certificate needs them. */
#ifndef HD_SERVE_OPENSSL_H
#define HD_SERVE_OPENSSL_H

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/lib.h"

/* In libevent_openssl; it brings libssl and libcrypto. */
#define HD_OPENSSL_FUNCTIONS(X)                                                                              \
    X(bufferevent_openssl_get_ssl)                                                                           \
    X(bufferevent_openssl_socket_new)                                                                        \
    X(SSL_CTX_check_private_key)                                                                             \
    X(SSL_CTX_ctrl)                                                                                          \
    X(SSL_CTX_free)                                                                                          \
    X(SSL_CTX_new)                                                                                           \
    X(SSL_CTX_set_alpn_select_cb)                                                                            \
    X(SSL_CTX_set_options)                                                                                   \
    X(SSL_CTX_use_PrivateKey_file)                                                                           \
    X(SSL_CTX_use_certificate_chain_file)                                                                    \
    X(SSL_free)                                                                                              \
    X(SSL_new)                                                                                               \
    X(SSL_select_next_proto)                                                                                 \
    X(SSL_set_shutdown)                                                                                      \
    X(SSL_shutdown)                                                                                          \
    X(TLS_server_method)                                                                                     \
    X(ASN1_INTEGER_set_uint64)                                                                               \
    X(BIO_ctrl)                                                                                              \
    X(BIO_free)                                                                                              \
    X(BIO_new)                                                                                               \
    X(BIO_new_mem_buf)                                                                                       \
    X(BIO_s_mem)                                                                                             \
    X(ERR_clear_error)                                                                                       \
    X(ERR_get_error)                                                                                         \
    X(ERR_reason_error_string)                                                                               \
    X(EVP_PKEY_Q_keygen)                                                                                     \
    X(EVP_PKEY_free)                                                                                         \
    X(EVP_sha256)                                                                                            \
    X(PEM_read_bio_PrivateKey)                                                                               \
    X(PEM_read_bio_X509)                                                                                     \
    X(PEM_write_bio_PKCS8PrivateKey)                                                                         \
    X(PEM_write_bio_X509)                                                                                    \
    X(RAND_bytes)                                                                                            \
    X(X509V3_EXT_conf_nid)                                                                                   \
    X(X509V3_set_ctx)                                                                                        \
    X(X509_EXTENSION_free)                                                                                   \
    X(X509_NAME_add_entry_by_txt)                                                                            \
    X(X509_add_ext)                                                                                          \
    X(X509_check_host)                                                                                       \
    X(X509_check_ip_asc)                                                                                     \
    X(X509_check_private_key)                                                                                \
    X(X509_cmp_time)                                                                                         \
    X(X509_free)                                                                                             \
    X(X509_get0_notAfter)                                                                                    \
    X(X509_get_serialNumber)                                                                                 \
    X(X509_get_subject_name)                                                                                 \
    X(X509_getm_notAfter)                                                                                    \
    X(X509_getm_notBefore)                                                                                   \
    X(X509_gmtime_adj)                                                                                       \
    X(X509_new)                                                                                              \
    X(X509_set_issuer_name)                                                                                  \
    X(X509_set_pubkey)                                                                                       \
    X(X509_set_version)                                                                                      \
    X(X509_sign)

/* Each function under its own name and type: o->SSL_new().  Not for the headers' macros, which call
 * functions by name. */
typedef struct {
    HD_LIB_POINTERS(HD_OPENSSL_FUNCTIONS)
} hd_openssl;

/* The functions, or NULL and HD_IO when the libraries are not to be had.  They stay until
 * the program ends. */
const hd_openssl *hd_openssl_open(hd_err *err);

#endif
