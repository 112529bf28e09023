/* hadal serve: the chat page and the API.
 *
 *   engine (a model in memory) --> scheduler (its own thread) --> network thread (this one) --> clients
 *
 * This file puts them together and takes them apart again; what is served is in src/serve. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/lines.h"
#include "cli/load.h"
#include "cli/serve_config.h"
#include "cli/serve_lan.h"
#include "serve/chats.h"

enum { PORT = 8080, PORTS = 10, GRACE_MS = 30000, MAX_ALIAS = HD_OPT_LIST_MAX, WORKERS = 2, EVENTS = 32 };

typedef struct {
    hd_load_opts load;
    bool open, lan, any_model, reasoning, no_chats;
    int64_t port, metrics_port, parallel, queue, max_tok, conns, conns_per_address, disk_gb;
    const char *host, *key_file, *cert, *key, *cache_dir, *config, *log, *chats;
    hd_opt_list alias, cors, hosts, proxies, shared;
} options;

typedef struct {
    hd_server s; // first: what the network calls `app` is this, too
    hd_engine *small; // of --draft, or NULL
    options o;
    hd_words argv, keys;
    char lan_address[48], *lan_cert, *lan_key;
    uint8_t login_secret[32];
    hd_alias alias[MAX_ALIAS];
    int log_fd;
    atomic_bool waking;
} serving;

/* ---- What was asked for ---- */

static bool is_loopback(const char *address)
{
    uint8_t a[16];
    if (inet_pton(AF_INET, address, a) == 1) return a[0] == 127;
    return strcmp(address, "::1") == 0;
}

static hd_status check(const serving *v, hd_err *err)
{
    const options *o = &v->o;
    uint8_t a[16];
    if (inet_pton(AF_INET, o->host, a) != 1 && inet_pton(AF_INET6, o->host, a) != 1)
        return hd_fail(err, HD_USAGE,
                       "option --host: '%.60s': needs an address, as 127.0.0.1, 0.0.0.0 or ::1", o->host);
    if (!o->cert != !o->key) return hd_fail(err, HD_USAGE, "options --cert and --key: one without the other");
    if (!is_loopback(o->host) && !o->open && !o->lan && v->keys.n == 0)
        return hd_fail(err, HD_USAGE,
                       "option --host %s: others could use the model: give --api-key-file FILE, or --open to "
                       "let anybody in",
                       o->host);
    if (!is_loopback(o->host) && !o->cert)
        hd_warn("%s: without --cert and --key what is said travels readable for all on the way", o->host);
    return HD_OK;
}

/* NAME, NAME=think or NAME=no-think */
static hd_status read_aliases(serving *v, hd_err *err)
{
    for (int i = 0; i < v->o.alias.n; i++) {
        const char *s = v->o.alias.v[i], *eq = strrchr(s, '=');
        size_t n = eq ? (size_t)(eq - s) : strlen(s);
        hd_alias *a = &v->alias[i];
        bool on = eq && strcmp(eq + 1, "think") == 0, off = eq && strcmp(eq + 1, "no-think") == 0;
        if (n == 0 || n >= sizeof a->name || (eq && !on && !off))
            return hd_fail(err, HD_USAGE, "option --alias: '%.60s': needs NAME, NAME=think or NAME=no-think",
                           s);
        memcpy(a->name, s, n);
        a->thinking = on ? 1 : off ? 0 : -1;
    }
    v->s.alias = v->alias;
    v->s.n_alias = v->o.alias.n;
    return HD_OK;
}

/* "-": stdout; nothing: no log. */
static hd_status open_log(serving *v, hd_err *err)
{
    if (!v->o.log) return HD_OK;
    v->log_fd = strcmp(v->o.log, "-") == 0 ? dup(STDOUT_FILENO)
                                           : open(v->o.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return v->log_fd < 0 ? hd_fail_errno(err, "log: %s", v->o.log) : HD_OK;
}

/* ---- The parts ---- */

static hd_status open_engine(serving *v, const char *model, hd_err *err)
{
    hd_status st;
    const options *o = &v->o;
    hd_engine_opts eo = {.n_threads = (int)o->load.threads,
                         .exact = o->load.exact,
                         .no_pack = o->load.no_pack,
                         .cache_type = o->load.cache_type,
                         .ctx_tok = o->load.ctx,
                         .n_sessions = (int)o->load.n_sessions,
                         .chat_format = o->load.chat_format,
                         .progress = true};
    HD_TRY(hd_load_small(&v->small, &o->load, &eo, err)); // first, so that the context's plan sees what it leaves
    HD_TRY(hd_hub_open_engine(&v->s.engine, model, &eo, err));
    v->s.tok = hd_engine_tokenizer(v->s.engine, err);
    if (!v->s.tok) st = err->code;
fail:
    return st;
}

/* The scheduler has events: they are delivered on the network thread, many at a time, but not so many that a
 * crowd's would keep everybody else waiting. */
static void on_wake(void *arg);
static void deliver(void *arg)
{
    serving *v = arg;
    v->waking = false;
    if (hd_sched_poll_some(v->s.sched, EVENTS)) on_wake(v);
}
static void on_wake(void *arg)
{
    serving *v = arg;
    if (atomic_exchange(&v->waking, true)) return; // on its way
    if (hd_net_post(v->s.net, deliver, v, NULL) != HD_OK) v->waking = false;
}

/* The folder itself is the scheduler's to make, those above it are made here. */
static hd_status make_parents(char *path, hd_err *err)
{
    for (char *s = path + 1; *s; s++) {
        if (*s != '/') continue;
        *s = 0;
        bool bad = mkdir(path, 0700) != 0 && errno != EEXIST;
        *s = '/';
        if (bad) return hd_fail_errno(err, "cache: %s", path);
    }
    return HD_OK;
}

/* DIR, or a folder of the usual cache for each port: what is kept there serves the next start
 * at the same place. */
static hd_status cache_folder(char **out, const serving *v, hd_err *err)
{
    hd_status st;
    char *models = NULL;
    hd_buf b;
    hd_buf_init(&b, 4096);
    if (v->o.cache_dir) HD_TRY(hd_buf_adds(&b, v->o.cache_dir, err));
    else {
        HD_TRY(hd_hub_folder(&models, err));
        *strrchr(models, '/') = 0;
        HD_TRY(hd_buf_addf(&b, err, "%s/serve-%d", models, hd_net_port(v->s.net)));
    }
    HD_TRY(make_parents(b.data, err));
    HD_TRY(hd_strdup(out, b.data, err));
fail:
    free(models);
    hd_buf_free(&b);
    return st;
}

static hd_status open_sched(serving *v, hd_err *err)
{
    hd_status st;
    const options *o = &v->o;
    char *dir = NULL;
    bool passing =
        o->port == 0 && !o->cache_dir; // another port at the next start: nobody would find what was kept
    if (o->disk_gb > 0 && !passing) HD_TRY(cache_folder(&dir, v, err));
    hd_sched_opts so = {.max_queue = (int)o->queue,
                        .max_live = (int)o->parallel,
                        .park_dir = dir,
                        .disk_bytes = (uint64_t)o->disk_gb << 30,
                        .draft = hd_load_draft_kind(&o->load),
                        .draft_max = (int)o->load.draft_max,
                        .small = v->small,
                        .wake = on_wake,
                        .wake_arg = v};
    HD_TRY(hd_sched_open(&v->s.sched, v->s.engine, &so, err));
fail:
    free(dir);
    return st;
}

/* What keeps the network thread free, and what is made once for everybody. */
static hd_status open_parts(serving *v, hd_err *err)
{
    hd_status st;
    const hd_vocab_tree *tree;
    HD_TRY(hd_work_open(&v->s.work, v->s.net, WORKERS, err));
    HD_TRY(hd_grammars_open(&v->s.grammars, err));
    HD_TRY(hd_shared_open(&v->s.shared, v->s.engine, v->o.shared.v, v->o.shared.n, err));
    HD_TRY(hd_tokenizer_tree(v->s.tok, &tree, err)); // the first answer with a grammar would wait for it
fail:
    return st;
}

/* Shared prefixes are in the cache before anybody asks. */
static void warm_shared(serving *v)
{
    const hd_ids *from;
    for (int i = 0; (from = hd_shared_ids(v->s.shared, i)); i++) {
        hd_ids ids = {0};
        bool whole = from->n > 0;
        for (int64_t k = 0; k < from->n && whole; k++) whole = hd_ids_add(&ids, from->id[k], NULL) == HD_OK;
        if (whole) hd_sched_warm(v->s.sched, &ids, 0, from->n, NULL);
        hd_ids_free(&ids);
    }
}

/* Conversations of the page; where no folder is known to keep them in, the API alone is served. */
static hd_status open_chats(serving *v, hd_err *err)
{
    char path[4096];
    if (v->o.no_chats) return HD_OK;
    if (v->o.chats) return hd_chats_open(&v->s.chats, &v->s, v->o.chats, err);
    if (!hd_state_path(path, sizeof path, "chats.db")) {
        hd_warn("chats: no folder to keep them in: give --chats FILE, or --no-chats");
        return HD_OK;
    }
    return hd_chats_open(&v->s.chats, &v->s, path, err);
}

static bool is_busy(void *app)
{
    const hd_server *s = app;
    return s->sched && !hd_sched_idle(s->sched);
}

static void on_stop(void *app)
{
    const hd_server *s = app;
    if (s->sched) hd_sched_drain(s->sched, true);
    fprintf(stderr, "stopping: answers under way are finished first; Ctrl-C again ends at once\n");
}

/* With --lan: where others find the page, for one browser. */
static void on_link(void *app, const char *token)
{
    const serving *v = app;
    char link[160];
    snprintf(link, sizeof link, "https://%s:%d/once/%s", v->lan_address, hd_net_port(v->s.net), token);
    hd_lan_show(link);
}

static hd_status open_lan(serving *v, hd_err *err)
{
    hd_status st;
    options *o = &v->o;
    if (o->open || o->cert)
        HD_TRY(hd_fail(
            err, HD_USAGE,
            "option --lan: it makes a certificate and a login of its own, without --cert and --open"));
    HD_TRY(hd_lan_address(v->lan_address, err));
    HD_TRY(hd_lan_certificate(&v->lan_cert, &v->lan_key, v->lan_address, err));
    o->cert = v->lan_cert;
    o->key = v->lan_key;
    o->host = "0.0.0.0";
fail:
    return st;
}

static hd_status open_net(serving *v, hd_err *err)
{
    const options *o = &v->o;
    hd_net_opts no = {.address = o->host,
                      .port = (int)(o->port >= 0 ? o->port : PORT),
                      .cert_file = o->cert,
                      .key_file = o->key,
                      .allowed_hosts = o->hosts.v,
                      .allowed_origins = o->cors.v,
                      .api_key_hashes = (const char *const *)v->keys.v,
                      .login = o->lan,
                      .login_secret = v->login_secret,
                      .on_link = on_link,
                      .trusted_proxies = o->proxies.v,
                      .max_conns = (int)o->conns,
                      .max_conns_per_ip = (int)o->conns_per_address,
                      .operator_port = (int)o->metrics_port,
                      .log_fd = v->log_fd,
                      .stop_flag = &hd_interrupted,
                      .reload_flag = &hd_hung_up,
                      .on_stop = on_stop,
                      .busy = is_busy,
                      .metrics = hd_server_metrics,
                      .app = &v->s};
    hd_status st = hd_net_open(&v->s.net, &no, err);
    /* A usual port that somebody has: the next ones, unless this one was asked for. */
    for (int i = 1; st == HD_IO && o->port < 0 && i < PORTS; i++) {
        no.port = PORT + i;
        st = hd_net_open(&v->s.net, &no, err);
    }
    return st;
}

/* The one line on stdout: where to go. */
static void tell(serving *v)
{
    const char *host = v->o.host;
    bool any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0, six = strchr(host, ':') != NULL;
    if (v->o.lan) on_link(v, hd_net_link(v->s.net));
    else
        printf(six && !any ? "%s://[%s]:%d/\n" : "%s://%s:%d/\n", v->o.cert ? "https" : "http",
               any ? "localhost" : host, hd_net_port(v->s.net));
    fflush(stdout);
    fprintf(stderr, "%s, a context of %lld ids%s; Ctrl-C stops\n", v->s.model_name,
            (long long)hd_engine_ctx_tok(v->s.engine), v->keys.n ? ", for those with an API key" : "");
    if (hd_net_operator_port(v->s.net))
        fprintf(stderr, "metrics: http://127.0.0.1:%d/metrics\n", hd_net_operator_port(v->s.net));
}

static hd_status serve(serving *v, const char *model, hd_err *err)
{
    hd_status st;
    const char *name = strrchr(model, '/');
    v->s.model_name = name && name[1] ? name + 1 : model;
    v->s.created = (int64_t)time(NULL);
    v->s.any_model = v->o.any_model;
    v->s.send_reasoning_too = v->o.reasoning;
    v->s.default_max_tok = v->o.max_tok;
    HD_TRY(hd_config_keys(&v->keys, v->o.key_file, err));
    HD_TRY(hd_login_secret(v->login_secret, err));
    if (v->o.lan) HD_TRY(open_lan(v, err));
    HD_TRY(check(v, err));
    HD_TRY(read_aliases(v, err));
    HD_TRY(open_log(v, err));
    HD_TRY(open_net(v, err)); // before the model: a port that is taken is told at once
    HD_TRY(open_engine(v, model, err));
    HD_TRY(open_parts(v, err));
    HD_TRY(open_chats(v, err));
    HD_TRY(open_sched(v, err));
    warm_shared(v);
    hd_watch_signals();
    hd_watch_hangup();
    tell(v);
    HD_TRY(hd_net_run(v->s.net, GRACE_MS, err));
fail:
    hd_work_close(v->s.work);
    hd_chats_close(v->s.chats);
    hd_grammars_close(v->s.grammars);
    hd_shared_close(v->s.shared);
    hd_sched_close(v->s.sched); // no request is left that has a job; the jobs' events had to find the network
    hd_net_close(v->s.net);
    hd_engine_close(v->s.engine);
    hd_engine_close(v->small);
    if (v->log_fd >= 0) close(v->log_fd);
    return st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    serving *v = NULL;
    char **words = NULL;
    int n = 0;
    HD_TRY(hd_alloc(&v, sizeof *v, err));
    options *o = &v->o;
    o->load = HD_LOAD_DEFAULTS;
    o->load.n_sessions = 4;
    o->disk_gb = 4;
    o->port = -1;
    o->host = "127.0.0.1";
    v->log_fd = -1;
    const hd_opt opts[] = {
        {"open", 0, HD_OPT_FLAG, &o->open, 0, 0},
        {"lan", 0, HD_OPT_FLAG, &o->lan, 0, 0},
        {"port", 'p', HD_OPT_INT, &o->port, 0, 65535},
        {"host", 0, HD_OPT_STR, &o->host, 0, 0},
        {"api-key-file", 0, HD_OPT_STR, &o->key_file, 0, 0},
        {"cert", 0, HD_OPT_STR, &o->cert, 0, 0},
        {"key", 0, HD_OPT_STR, &o->key, 0, 0},
        {"allow-host", 0, HD_OPT_LIST, &o->hosts, 0, 0},
        {"cors", 0, HD_OPT_LIST, &o->cors, 0, 0},
        {"trust-proxy", 0, HD_OPT_LIST, &o->proxies, 0, 0},
        {"alias", 0, HD_OPT_LIST, &o->alias, 0, 0},
        {"any-model", 0, HD_OPT_FLAG, &o->any_model, 0, 0},
        {"reasoning-field", 0, HD_OPT_FLAG, &o->reasoning, 0, 0},
        {"max-tokens", 0, HD_OPT_INT, &o->max_tok, 1, 1 << 30},
        {"sessions", 0, HD_OPT_INT, &o->load.n_sessions, 1, 4096},
        {"parallel", 0, HD_OPT_INT, &o->parallel, 1, 1024},
        {"queue", 0, HD_OPT_INT, &o->queue, 1, 100000},
        {"cache-dir", 0, HD_OPT_STR, &o->cache_dir, 0, 0},
        {"cache-gb", 0, HD_OPT_INT, &o->disk_gb, 0, 1 << 20},
        {"shared-prefix", 0, HD_OPT_LIST, &o->shared, 0, 0},
        {"draft", 0, HD_OPT_STR, &o->load.draft, 0, 0},
        {"draft-max", 0, HD_OPT_INT, &o->load.draft_max, 1, 8},
        {"chats", 0, HD_OPT_STR, &o->chats, 0, 0},
        {"no-chats", 0, HD_OPT_FLAG, &o->no_chats, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &o->load.chat_format, 0, 0},
        {"metrics-port", 0, HD_OPT_INT, &o->metrics_port, 1, 65535},
        {"log", 0, HD_OPT_STR, &o->log, 0, 0},
        {"max-connections", 0, HD_OPT_INT, &o->conns, 1, 60000},
        {"max-per-address", 0, HD_OPT_INT, &o->conns_per_address, 1, 60000},
        {"config", 0, HD_OPT_STR, &o->config, 0, 0},
        HD_MODEL_OPTS(o->load),
    };
    HD_TRY(hd_config_words(&v->argv, argc, argv, err));
    HD_TRY(hd_alloc_n(&words, (size_t)v->argv.n + 1, sizeof *words, err)); // parsing moves them about
    for (int i = 0; i < v->argv.n; i++) words[i] = v->argv.v[i];
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], v->argv.n, words, &n, err));
    if (n != 1) HD_TRY(hd_fail(err, HD_USAGE, "serve: one model is needed: hadal serve MODEL"));
    HD_TRY(serve(v, words[1], err));
fail:
    free(words);
    if (v) {
        hd_words_free(&v->argv);
        hd_words_free(&v->keys);
        free(v->lan_cert);
        free(v->lan_key);
        free(v);
    }
    return st;
}

const hd_command hd_cmd_serve = {
    .verb = "serve",
    .summary = "a chat page and an API that clients of OpenAI, Anthropic and ollama speak",
    .help = "usage: hadal serve MODEL [options]\n\n"
            "Prints the page's address; the API is below it (/v1/chat/completions and others).  Alone on "
            "this machine unless\n"
            "told otherwise.  Ctrl-C lets answers under way finish.\n\n"
            "  -p, --port N             default: 8080, or the next free one\n"
            "      --host ADDRESS       where to listen; default 127.0.0.1; 0.0.0.0: everywhere\n"
            "      --open               no API key is asked for, also when others can reach the server\n"
            "      --lan                for a phone on the same network: TLS with a certificate made here, a "
            "one-time\n"
            "                           link and its QR code\n"
            "      --api-key-file FILE  one key a line; also $HADAL_API_KEY\n"
            "      --cert FILE --key FILE  TLS\n"
            "      --allow-host NAME    a name by which it is reached (may be repeated)\n"
            "      --cors ORIGIN        a web site whose pages may use the API (may be repeated)\n"
            "      --trust-proxy ADDRESS  believe its X-Forwarded-For (may be repeated)\n"
            "      --alias NAME         another name of the model; NAME=think, NAME=no-think choose (may be "
            "repeated)\n"
            "      --any-model          every model name means this one\n"
            "      --reasoning-field    send thinking as `reasoning` beside `reasoning_content`\n"
            "      --max-tokens N       of an answer, when the request does not say\n"
            "      --sessions N         conversations of full length the cache has room for; default 4\n"
            "      --parallel N         answers in one pass of the model; default 64\n"
            "      --queue N            requests that may wait for a place; default 256\n"
            "      --cache-dir DIR      where prompts are kept across restarts; default: in ~/.cache/hadal, "
            "by port\n"
            "      --cache-gb N         of them at most; default 4, 0: keep none\n"
            "      --shared-prefix FILE a system prompt, or its beginning, that is computed once for all users "
            "(may be repeated)\n"
            "      --draft WHAT         guess ahead, answers stay the same: lookup (repeated words), mtp (the "
            "model's\n"
            "                           own extra layer), or a smaller MODEL with the same vocabulary\n"
            "      --draft-max N        guesses a pass\n"
            "      --chats FILE         the page's conversations; default: in ~/.local/state/hadal\n"
            "      --no-chats           keep none\n"
            "      --chat-format NAME   instead of the model's own\n"
            "      --metrics-port N     Prometheus metrics for this machine alone, at /metrics\n"
            "      --log FILE           one JSON line a request, without its text; -: standard output\n"
            "      --max-connections N  default 512\n"
            "      --max-per-address N  connections of one address; default 64\n"
            "      --config FILE        options as lines NAME = VALUE\n" HD_MODEL_HELP "\nexamples:\n"
            "  hadal serve r1:1.5b\n"
            "  hadal serve qwen.gguf --port 11434 --alias qwen3 --any-model\n"
            "  hadal serve r1.gguf --host 0.0.0.0 --api-key-file keys --cert fullchain.pem --key key.pem "
            "--allow-host chat.example\n",
    .run = run,
};
