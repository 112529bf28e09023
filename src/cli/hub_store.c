/* The folder of pulled models: where it is, what lies there, and what a name means there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/hub.h"
#include "train/checkpoint.h"

enum { MAX_DEPTH = 4, MAX_FILES = 100000 };

/* ---- Paths ---- */

hd_status hd_hub_join(char **path, const char *dir, const char *name, hd_err *err)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    hd_status st = hd_alloc(path, n, err);
    if (st == HD_OK) snprintf(*path, n, "%s/%s", dir, name);
    return st;
}

hd_status hd_hub_folder(char **path, hd_err *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && xdg[0] == '/') return hd_hub_join(path, xdg, "hadal/models", err);
    if (home && home[0] == '/') return hd_hub_join(path, home, ".cache/hadal/models", err);
    return hd_fail(err, HD_IO, "models: folder: neither HOME nor XDG_CACHE_HOME says where to keep them");
}

hd_status hd_hub_repo_folder(char **path, const char *repo, hd_err *err)
{
    hd_status st;
    char *models = NULL, name[HD_HUB_NAME + 2];
    int owner = (int)strcspn(repo, "/");
    HD_TRY(hd_hub_folder(&models, err));
    snprintf(name, sizeof name, "%.*s--%s", owner, repo, repo + owner + 1);
    HD_TRY(hd_hub_join(path, models, name, err));
fail:
    free(models);
    return st;
}

/* ---- Files below a folder ---- */

static hd_status add_file(hd_hub_files *f, const char *rel, hd_err *err)
{
    hd_status st;
    if (f->n == MAX_FILES)
        return hd_fail(err, HD_LIMIT, "models: more than %d files in one folder", MAX_FILES);
    if (f->n == f->cap) {
        int cap = f->cap ? 2 * f->cap : 16;
        HD_TRY(hd_realloc(&f->v, (size_t)cap * sizeof *f->v, err));
        f->cap = cap;
    }
    HD_TRY(hd_strdup(&f->v[f->n], rel, err));
    f->n++;
fail:
    return st;
}

static hd_status walk(hd_hub_files *f, const char *root, const char *rel, int depth, hd_err *err)
{
    hd_status st = HD_OK;
    char *dir = NULL, *path = NULL, *name = NULL;
    DIR *d = NULL;
    HD_TRY(hd_hub_join(&dir, root, rel, err));
    if (!(d = opendir(dir))) {
        if (errno != ENOENT && errno != ENOTDIR) st = hd_fail_errno(err, "models: %s", dir);
        goto fail;
    }
    for (struct dirent *e; (e = readdir(d));) {
        struct stat sb;
        if (e->d_name[0] == '.') continue;
        free(path);
        free(name);
        path = name = NULL;
        HD_TRY(hd_hub_join(&path, dir, e->d_name, err));
        if (rel[0]) HD_TRY(hd_hub_join(&name, rel, e->d_name, err));
        else HD_TRY(hd_strdup(&name, e->d_name, err));
        if (lstat(path, &sb) != 0) continue; // gone meanwhile
        if (S_ISREG(sb.st_mode)) HD_TRY(add_file(f, name, err));
        else if (S_ISDIR(sb.st_mode) && depth < MAX_DEPTH) HD_TRY(walk(f, root, name, depth + 1, err));
    }
fail:
    if (d) closedir(d);
    free(dir);
    free(path);
    free(name);
    return st;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

hd_status hd_hub_walk(hd_hub_files *f, const char *root, hd_err *err)
{
    *f = (hd_hub_files){0};
    hd_status st = walk(f, root, "", 1, err);
    if (f->n) qsort(f->v, (size_t)f->n, sizeof *f->v, by_name);
    return st;
}

void hd_hub_files_free(hd_hub_files *f)
{
    for (int i = 0; i < f->n; i++) free(f->v[i]);
    free(f->v);
    *f = (hd_hub_files){0};
}

static bool has_file(const hd_hub_files *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->v[i], name) == 0) return true;
    return false;
}

/* ---- A name's model ---- */

/* *path stays NULL when the repository has no such model here. */
static hd_status find_pulled(char **path, const hd_hub_name *n, hd_err *err)
{
    hd_status st;
    char *folder = NULL;
    hd_hub_files f = {0};
    HD_TRY(hd_hub_repo_folder(&folder, n->repo, err));
    HD_TRY(hd_hub_walk(&f, folder, err));
    int k = n->pick[0] || !has_file(&f, "config.json") ? hd_hub_choose((const char *const *)f.v, f.n, n->pick)
                                                       : -1;
    if (k == HD_HUB_SEVERAL)
        HD_TRY(
            hd_fail(err, HD_USAGE, "model: %s: several are here; hadal models lists their names", n->repo));
    if (k >= 0) HD_TRY(hd_hub_join(path, folder, f.v[k], err));
    else if (!n->pick[0] && has_file(&f, "config.json")) HD_TRY(hd_strdup(path, folder, err));
fail:
    hd_hub_files_free(&f);
    free(folder);
    return st;
}

/* models/NAME or models/NAME.gguf: files that were put there by hand or by `make chat`. */
static hd_status find_plain(char **path, const char *name, hd_err *err)
{
    hd_status st;
    char *models = NULL, *try = NULL;
    char with_tail[HD_HUB_PATH + 8];
    if (!hd_hub_safe_path(name) || strchr(name, '/')) return HD_OK;
    if (hd_hub_folder(&models, NULL) != HD_OK) return HD_OK;
    snprintf(with_tail, sizeof with_tail, "%s.gguf", name);
    HD_TRY(hd_hub_join(&try, models, with_tail, err));
    if (!hd_is_file(try)) {
        free(try);
        HD_TRY(hd_hub_join(&try, models, name, err));
    }
    if (hd_is_file(try)) {
        *path = try;
        try = NULL;
    }
fail:
    free(models);
    free(try);
    return st;
}

/* An existing path; of a training run's folder its newest checkpoint. */
static hd_status existing(char **path, const char *name, hd_err *err)
{
    hd_status st;
    char file[1100], newest[1024] = "";
    snprintf(file, sizeof file, "%.1000s/recipe.ini", name);
    if (hd_is_file(file)) HD_TRY(hd_checkpoint_find(newest, name, err));
    st = hd_strdup(path, newest[0] ? newest : name, err);
fail:
    return st;
}

hd_status hd_hub_resolve(char **path, const char *name, hd_err *err)
{
    hd_status st = HD_OK;
    struct stat sb;
    hd_hub_name n;
    size_t len = strlen(name);
    *path = NULL;
    if (stat(name, &sb) == 0) return existing(path, name, err);
    HD_TRY(find_plain(path, name, err));
    if (*path) return HD_OK;
    bool is_name = hd_hub_parse(&n, name, NULL) == HD_OK &&
                   !(len > 5 && strcasecmp(name + len - 5, ".gguf") == 0 && !strchr(name, ':'));
    if (!is_name) return hd_strdup(path, name, err);
    HD_TRY(find_pulled(path, &n, err));
    if (!*path)
        st = hd_fail(err, HD_IO,
                     "model: %.200s: no such file, and not pulled yet: hadal pull %.200s fetches it", name,
                     name);
fail:
    return st;
}

hd_status hd_hub_open_source(hd_source **out, const char *name, bool need_weights, hd_err *err)
{
    char *path;
    hd_status st = hd_hub_resolve(&path, name, err);
    if (st == HD_OK) st = hd_source_open(out, path, need_weights, err);
    free(path);
    return st;
}

hd_status hd_hub_open_engine(hd_engine **out, const char *name, const hd_engine_opts *o, hd_err *err)
{
    char *path;
    hd_status st = hd_hub_resolve(&path, name, err);
    if (st == HD_OK) st = hd_engine_open(out, path, o, err);
    free(path);
    return st;
}

/* ---- The list ---- */

static hd_status add_model(hd_hub_models *m, const char *name, const char *path, hd_err *err)
{
    hd_status st;
    if (m->n == m->cap) {
        int cap = m->cap ? 2 * m->cap : 8;
        HD_TRY(hd_realloc(&m->v, (size_t)cap * sizeof *m->v, err));
        m->cap = cap;
    }
    m->v[m->n] = (hd_hub_model){0};
    HD_TRY(hd_strdup(&m->v[m->n].name, name, err));
    m->n++;
    HD_TRY(hd_strdup(&m->v[m->n - 1].path, path, err));
fail:
    return st;
}

static void measure(hd_hub_model *m, const char *path)
{
    struct stat sb;
    if (stat(path, &sb) != 0) return;
    m->bytes += (uint64_t)sb.st_size;
    if (sb.st_mtime > m->time) m->time = sb.st_mtime;
}

/* The parts of a split model share their names up to the number. */
static bool same_model(const char *first, const char *other)
{
    size_t n = strlen(first), tail = sizeof "-00001-of-00002.gguf" - 1;
    if (!hd_hub_part(first)) return strcmp(first, other) == 0;
    return strlen(other) == n && hd_hub_part(other) && strncmp(first, other, n - tail) == 0 &&
           strcmp(first + n - 14, other + n - 14) == 0;
}

/* The shortest name that means file k: from the catalogue, else owner/repo:file. */
static void name_of(char *out, size_t size, const char *repo, const hd_hub_files *f, int k)
{
    for (int i = 0; hd_hub_catalogue(i); i++) {
        const hd_hub_entry *e = hd_hub_catalogue(i);
        if (strcmp(e->repo, repo) != 0 || hd_hub_choose((const char *const *)f->v, f->n, e->pick) != k)
            continue;
        snprintf(out, size, "%s", e->name);
        return;
    }
    snprintf(out, size, "%s:%s", repo, f->v[k]);
}

static hd_status list_repo(hd_hub_models *m, const char *folder, const char *repo, hd_err *err)
{
    hd_status st;
    hd_hub_files f = {0};
    char *path = NULL, name[HD_HUB_NAME + HD_HUB_PATH + 2];
    int before = m->n;
    HD_TRY(hd_hub_walk(&f, folder, err));
    if (has_file(&f, "config.json")) {
        HD_TRY(add_model(m, repo, folder, err));
        m->v[m->n - 1].dir = true;
    }
    for (int k = 0; k < f.n; k++) {
        size_t len = strlen(f.v[k]);
        free(path);
        path = NULL;
        HD_TRY(hd_hub_join(&path, folder, f.v[k], err));
        if (len < 6 || strcasecmp(f.v[k] + len - 5, ".gguf") != 0) {
            if (m->n > before && m->v[before].dir) measure(&m->v[before], path);
            continue;
        }
        if (hd_hub_part(f.v[k]) > 1) continue;
        name_of(name, sizeof name, repo, &f, k);
        HD_TRY(add_model(m, name, path, err));
        for (int i = 0; i < f.n; i++) {
            if (!same_model(f.v[k], f.v[i])) continue;
            free(path);
            path = NULL;
            HD_TRY(hd_hub_join(&path, folder, f.v[i], err));
            measure(&m->v[m->n - 1], path);
        }
    }
    if (m->n == before) {
        HD_TRY(add_model(m, repo, folder, err));
        m->v[before].dir = m->v[before].unfinished = true;
    }
fail:
    free(path);
    hd_hub_files_free(&f);
    return st;
}

static int model_by_name(const void *a, const void *b)
{
    return strcmp(((const hd_hub_model *)a)->name, ((const hd_hub_model *)b)->name);
}

hd_status hd_hub_list(hd_hub_models *m, hd_err *err)
{
    hd_status st;
    char *models = NULL, *path = NULL, repo[HD_HUB_NAME];
    DIR *d = NULL;
    *m = (hd_hub_models){0};
    HD_TRY(hd_hub_folder(&models, err));
    if (!(d = opendir(models))) {
        if (errno != ENOENT) st = hd_fail_errno(err, "models: %s", models);
        goto fail;
    }
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        char *join = strstr(e->d_name, "--");
        if (e->d_name[0] == '.') continue;
        free(path);
        path = NULL;
        HD_TRY(hd_hub_join(&path, models, e->d_name, err));
        if (n > 5 && strcasecmp(e->d_name + n - 5, ".gguf") == 0 && hd_is_file(path)) {
            e->d_name[n - 5] = 0;
            HD_TRY(add_model(m, e->d_name, path, err));
            measure(&m->v[m->n - 1], path);
        } else if (join && n < sizeof repo && hd_is_dir(path)) {
            snprintf(repo, sizeof repo, "%.*s/%s", (int)(join - e->d_name), e->d_name, join + 2);
            HD_TRY(list_repo(m, path, repo, err));
        }
    }
    if (m->n) qsort(m->v, (size_t)m->n, sizeof *m->v, model_by_name);
fail:
    if (d) closedir(d);
    free(models);
    free(path);
    if (st != HD_OK) hd_hub_models_free(m);
    return st;
}

void hd_hub_models_free(hd_hub_models *m)
{
    for (int i = 0; i < m->n; i++) {
        free(m->v[i].name);
        free(m->v[i].path);
    }
    free(m->v);
    *m = (hd_hub_models){0};
}

/* ---- Removal ---- */

/* Everything below a folder of ours; links are removed, not followed. */
static hd_status wipe(const char *dir, int depth, hd_err *err)
{
    hd_status st = HD_OK;
    char *path = NULL;
    DIR *d = opendir(dir);
    if (!d) return hd_fail_errno(err, "remove: %s", dir);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat sb;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        free(path);
        path = NULL;
        HD_TRY(hd_hub_join(&path, dir, e->d_name, err));
        if (lstat(path, &sb) != 0) continue;
        if (S_ISDIR(sb.st_mode) && depth <= MAX_DEPTH) HD_TRY(wipe(path, depth + 1, err));
        else if (unlink(path) != 0) HD_TRY(hd_fail_errno(err, "remove: %s", path));
    }
    if (rmdir(dir) != 0) st = hd_fail_errno(err, "remove: %s", dir);
fail:
    closedir(d);
    free(path);
    return st;
}

/* The folder of a repository that `path` lies in, cut out of the path; false for a file of its own. */
static bool repo_folder_of(char *path, const char *models)
{
    size_t n = strlen(models);
    char *rest = path + n + 1;
    if (strncmp(path, models, n) != 0 || path[n] != '/') return false;
    size_t name = strcspn(rest, "/");
    if (!rest[name] || !strstr(rest, "--")) return false;
    rest[name] = 0;
    return true;
}

hd_status hd_hub_remove(const hd_hub_model *m, hd_err *err)
{
    hd_status st;
    char *models = NULL, *folder = NULL, *path = NULL;
    hd_hub_files f = {0};
    if (m->dir) return wipe(m->path, 1, err);
    HD_TRY(hd_hub_folder(&models, err));
    HD_TRY(hd_strdup(&folder, m->path, err));
    if (!repo_folder_of(folder, models)) {
        if (unlink(m->path) != 0) st = hd_fail_errno(err, "remove: %s", m->path);
        goto fail;
    }
    HD_TRY(hd_hub_walk(&f, folder, err));
    int left = 0;
    const char *first = m->path + strlen(folder) + 1;
    for (int i = 0; i < f.n; i++) {
        if (!same_model(first, f.v[i])) {
            left++;
            continue;
        }
        free(path);
        path = NULL;
        HD_TRY(hd_hub_join(&path, folder, f.v[i], err));
        if (unlink(path) != 0) HD_TRY(hd_fail_errno(err, "remove: %s", path));
    }
    if (!left) HD_TRY(wipe(folder, 1, err));
fail:
    hd_hub_files_free(&f);
    free(models);
    free(folder);
    free(path);
    return st;
}
