/* hadal serve --lan: a certificate for this machine's address, a one-time link and its QR code; and the
 * secret that logins are sealed with. */
#ifndef HD_CLI_SERVE_LAN_H
#define HD_CLI_SERVE_LAN_H

#include "base/buf.h"

/* The address by which others on the network reach this machine: a private IPv4 address if there is one. */
hd_status hd_lan_address(char out[48], hd_err *err);
/* Paths of the certificate and the key for it, in strings for the caller to free(); made when
 * they do not fit. */
hd_status hd_lan_certificate(char **cert, char **key, const char *address, hd_err *err);
/* The link on stdout, its QR code on stderr when that is a terminal. */
void hd_lan_show(const char *link);
/* 32 bytes, the same at every start; without a folder to keep them in, for this start only. */
hd_status hd_login_secret(uint8_t out[32], hd_err *err);

#endif
