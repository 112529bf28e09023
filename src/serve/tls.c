/* TLS for the listener: OpenSSL under libevent's bufferevents.  1.2 and later, no renegotiation, no
 * compression; the rest is OpenSSL's defaults, which Debian keeps sound. */
#include <string.h>

#include "serve/net_impl.h"
#include "serve/openssl.h"

/* Clients that offer protocols get the one that is spoken here. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n_out, const unsigned char *in,
                           unsigned n, void *arg)
{
    static const unsigned char http[] = "\x08http/1.1";
    unsigned char *chosen;
    const hd_openssl *o = arg;
    (void)ssl;
    if (o->SSL_select_next_proto(&chosen, n_out, http, sizeof http - 1, in, n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static hd_status fail(const hd_openssl *o, hd_err *err, const char *what, const char *file)
{
    unsigned long e = o->ERR_get_error();
    const char *why = e ? o->ERR_reason_error_string(e) : NULL;
    o->ERR_clear_error();
    return hd_fail(err, HD_IO, "%s: %s: %s", what, file, why ? why : "not usable");
}

hd_status hd_tls_open(void **ctx, const char *cert_file, const char *key_file, hd_err *err)
{
    hd_status st = HD_OK;
    const hd_openssl *o = hd_openssl_open(err);
    *ctx = NULL;
    if (!o) return HD_IO;
    SSL_CTX *c = o->SSL_CTX_new(o->TLS_server_method());
    *ctx = c;
    if (!c) HD_TRY(hd_fail(err, HD_NOMEM, "TLS: no memory"));
    o->SSL_CTX_ctrl(c, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL);
    o->SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    o->SSL_CTX_ctrl(c, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL);
    o->SSL_CTX_set_alpn_select_cb(c, choose_protocol, (void *)(uintptr_t)o);
    if (o->SSL_CTX_use_certificate_chain_file(c, cert_file) != 1) HD_TRY(fail(o, err, "certificate", cert_file));
    if (o->SSL_CTX_use_PrivateKey_file(c, key_file, SSL_FILETYPE_PEM) != 1) HD_TRY(fail(o, err, "key", key_file));
    if (o->SSL_CTX_check_private_key(c) != 1)
        HD_TRY(fail(o, err, "key does not belong to the certificate", key_file));
fail:
    return st;
}

void hd_tls_close(void *ctx)
{
    const hd_openssl *o = ctx ? hd_openssl_open(NULL) : NULL;
    if (o) o->SSL_CTX_free(ctx);
}

struct bufferevent *hd_tls_accept(void *ctx, struct event_base *base, int fd)
{
    const hd_openssl *o = hd_openssl_open(NULL); // open since there is a ctx
    SSL *ssl = o->SSL_new(ctx);
    struct bufferevent *bev =
        ssl ? o->bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE)
            : NULL;
    if (!bev) o->SSL_free(ssl);
    return bev;
}

void hd_tls_end(struct bufferevent *bev)
{
    const hd_openssl *o = hd_openssl_open(NULL);
    SSL *ssl = o->bufferevent_openssl_get_ssl(bev);
    if (!ssl) return;
    o->SSL_set_shutdown(ssl, SSL_RECEIVED_SHUTDOWN);
    o->SSL_shutdown(ssl); // one record; whether it fits into the socket's buffer does not matter
    o->ERR_clear_error();
}
