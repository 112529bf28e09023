/* The page's files, embedded at build time by tools/embed: each plain and, where it pays, gzipped. */
#ifndef HD_SERVE_ASSETS_H
#define HD_SERVE_ASSETS_H

#include "hadal.h"

typedef struct {
    const char *path; // "/a/app-0123456789ab.js"
    const char *type, *etag;
    const unsigned char *plain;
    size_t n_plain;
    const unsigned char *packed; // gzip; NULL: not smaller
    size_t n_packed;
} hd_asset;

extern const hd_asset hd_assets[]; // sorted by path
extern const int hd_n_assets;
extern const char hd_assets_mark[]; // the hash in the names: one for the whole set

const hd_asset *hd_asset_find(const char *path); // NULL: none

#endif
