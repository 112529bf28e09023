/* Models by name: the catalogue of short names, the Hugging Face hub they come from, and the folder where
 * pulled files lie.
 *
 *   $XDG_CACHE_HOME/hadal/models/OWNER--REPO/FILE          whole, checked files, named as in the repository
 *                                           /.checked      their SHA-256 sums
 *                                           /.FILE.part    what an interrupted download left, and .FILE.part.etag
 *                                           /.lock         held while a download is under way
 *
 * A name is one of
 *   r1:1.5b                     a line of the catalogue
 *   owner/repo                  a repository: its safetensors, or its usual GGUF
 *   owner/repo:q4_k_m           of several GGUF files the one with this format in its name
 *   owner/repo:file.gguf        exactly this file */
#ifndef HD_CLI_HUB_H
#define HD_CLI_HUB_H

#include "base/buf.h"
#include "model/source.h"

enum { HD_HUB_NAME = 128, HD_HUB_PATH = 256 }; // of owner/repo; of a file in a repository

typedef struct {
    char repo[HD_HUB_NAME]; // "owner/name"
    char pick[HD_HUB_PATH]; // a format or a file; "": none given
} hd_hub_name;

/* ---- Names (hub_name.c) ---- */

typedef struct {
    const char *name, *repo, *pick;
} hd_hub_entry;
const hd_hub_entry *hd_hub_catalogue(int i); // walk the table; NULL past its end

/* HD_USAGE: neither in the catalogue nor of the form owner/repo[:pick]. */
hd_status hd_hub_parse(hd_hub_name *n, const char *text, hd_err *err);
/* Is this path fit to be made inside a folder of ours, whoever sent it?  Relative, no hidden or special
 * parts. */
bool hd_hub_safe_path(const char *path);
/* Does file name `path` carry the format `pick`, or is it `pick` itself?  Case does not matter. */
bool hd_hub_matches(const char *path, const char *pick);
/* For model.gguf 0; for x-00002-of-00009.gguf 2. */
int hd_hub_part(const char *path);

/* Which of these files is the model that `pick` ("": the usual format) means: the index of a whole GGUF or of
 * a first part, -1 for none, HD_HUB_SEVERAL when a pick is needed. */
enum { HD_HUB_SEVERAL = -2 };
int hd_hub_choose(const char *const *path, int n, const char *pick);

/* ---- The folder (hub_store.c) ---- */

/* Relative paths of the regular files below a folder; links are not followed, hidden files skipped. */
typedef struct {
    char **v;
    int n, cap;
} hd_hub_files;
hd_status hd_hub_walk(hd_hub_files *f, const char *root, hd_err *err);
void hd_hub_files_free(hd_hub_files *f);
hd_status hd_hub_join(char **path, const char *dir, const char *name, hd_err *err); // dir/name; free()

/* Its path, in a string for the caller to free().  HD_IO: neither XDG_CACHE_HOME nor HOME is set. */
hd_status hd_hub_folder(char **path, hd_err *err);
hd_status hd_hub_repo_folder(char **path, const char *repo, hd_err *err);

/* The file or directory that `name` stands for: an existing path as it is (of a training run its newest
 * checkpoint), else a pulled model.  *path:
 * free().  A name that could be pulled and is not there is HD_IO and says how; anything else is returned
 * unchanged, for whoever opens it to complain. */
hd_status hd_hub_resolve(char **path, const char *name, hd_err *err);

/* Resolve and open: what every command that takes a MODEL calls. */
hd_status hd_hub_open_source(hd_source **out, const char *name, bool need_weights, hd_err *err);
hd_status hd_hub_open_engine(hd_engine **out, const char *name, const hd_engine_opts *o, hd_err *err);

typedef struct {
    char *name, *path; // what commands call it; where it is
    bool dir;          // a directory of safetensors
    bool unfinished;   // a download that can be resumed
    uint64_t bytes;
    int64_t time; // of the last change, seconds since 1970
} hd_hub_model;
typedef struct {
    hd_hub_model *v;
    int n, cap;
} hd_hub_models;
hd_status hd_hub_list(hd_hub_models *m, hd_err *err);
void hd_hub_models_free(hd_hub_models *m);
hd_status hd_hub_remove(const hd_hub_model *m, hd_err *err);

/* ---- Fetching (hub_pull.c over hub_http.c) ---- */

typedef struct {
    int retries; // attempts that bring nothing before giving up
    bool verify; // read again what is already here
    char *path;  // out: what to open; free()
    int n_fetched, n_kept;
    uint64_t bytes; // fetched
} hd_pull;
hd_status hd_hub_pull(hd_pull *p, const hd_hub_name *n, hd_err *err);

/* One request; follows redirections.  The token goes to the endpoint's own host and nowhere else. */
typedef struct hd_http hd_http;
typedef struct {
    long status;
    int64_t length;             // Content-Length, -1: not said
    int64_t from, total;        // Content-Range, -1: none
    char etag[256], next[1024]; // next: of a Link header
    double retry_after;
} hd_hub_reply;
typedef struct {
    uint64_t from;        // > 0: Range: bytes=FROM-
    const char *if_range; // an ETag, or NULL
    /* Called once the head is known (false: stop), then with the body. */
    bool (*head)(void *arg, const hd_hub_reply *r);
    bool (*body)(void *arg, const void *p, size_t n);
    void *arg;
} hd_request;
hd_status hd_http_open(hd_http **out, hd_err *err);
void hd_http_close(hd_http *h);
const char *hd_http_endpoint(const hd_http *h);
/* HD_OK: some status arrived, whole.  HD_IO: the connection failed (r->status 0) or broke; HD_CANCELLED: a
 * callback or Ctrl-C stopped it. */
hd_status hd_http_get(hd_http *h, const char *url, const hd_request *q, hd_hub_reply *r, hd_err *err);

#endif
