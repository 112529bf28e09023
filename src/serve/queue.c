/* Who is next.
 *
 *   users    A: a3 a4 a5      B: b1      C: c7' c8          each a queue; parked ones (') stand in front
 *   live     a1 a2 c6
 *
 * The next is of the user who has the fewest living sequences, and of those with as few, who had his last
 * turn longest ago: so ten requests of one user wait for each other and not for somebody else's.  A user who
 * has none, and finds all places taken, gets the place of the youngest sequence of one who has several.
 *
 * Admission asks for pages: those of the prompt that are not in the prefix cache, room to grow, and what the
 * living ones were promised and have not taken yet.  Answers grow beyond that; when no page is left, prefixes
 * are forgotten, and then the youngest is parked: its timeline is kept (on disk with its cache, park.c, where
 * there is a folder, else as ids that are computed again), and it stands at the head of its user's queue.
 * The oldest always goes on, so everybody ends some time. */
#include <string.h>

#include "base/log.h"
#include "serve/sched_parts.h"

/* ---- Users ---- */

static hd_status user_of(hd_sched *s, uint64_t id, hd_user **out, hd_err *err)
{
    hd_user *u = s->users;
    while (u && u->id != id) u = u->next;
    if (!u) {
        hd_status st = hd_alloc(&u, sizeof *u, err);
        if (st != HD_OK) return st;
        u->id = id;
        u->last = &u->first;
        u->next = s->users;
        s->users = u;
    }
    *out = u;
    return HD_OK;
}

static void forget_user(hd_sched *s, hd_user *u)
{
    hd_user **at = &s->users;
    if (u->n_live > 0 || u->n_waiting > 0) return;
    while (*at != u) at = &(*at)->next;
    *at = u->next;
    free(u);
}

static void put(hd_sched *s, hd_job *j, bool front)
{
    hd_user *u = j->user;
    j->state = HD_JOB_WAITING;
    j->next = front ? u->first : NULL;
    if (front) u->first = j;
    else *u->last = j;
    if (!j->next) u->last = &j->next;
    u->n_waiting++;
    s->n_waiting++;
    s->n_parked += front;
    s->changed = true;
}

static bool is_parked(const hd_job *j) { return j->t_admit > 0; }

static void take(hd_sched *s, hd_job *j)
{
    hd_user *u = j->user;
    hd_job **at = &u->first;
    while (*at != j) at = &(*at)->next;
    *at = j->next;
    if (!j->next) u->last = at;
    u->n_waiting--;
    s->n_waiting--;
    if (is_parked(j)) s->n_parked--;
    else atomic_fetch_sub(&s->n_queued, 1);
    s->changed = true;
}

hd_status hd_queue_put(hd_sched *s, hd_job *j, hd_err *err)
{
    hd_status st = user_of(s, j->o.user, &j->user, err);
    if (st != HD_OK) return st;
    j->number = ++s->n_jobs;
    put(s, j, false);
    return HD_OK;
}

/* ---- Leaving ---- */

static void forget_parked(hd_sched *s, hd_job *j);

void hd_queue_leave(hd_sched *s, hd_job *j)
{
    int i = 0;
    while (s->live[i] != j) i++;
    memmove(&s->live[i], &s->live[i + 1], (size_t)(--s->n_live - i) * sizeof *s->live);
    j->user->n_live--;
    s->drafted_tok += j->s->n_drafted;
    s->accepted_tok += j->s->n_accepted;
    hd_session_close(j->s);
    j->s = NULL;
    j->last = NULL;
    j->n_known = 0;
    s->changed = true;
}

void hd_queue_release(hd_sched *s, hd_job *j)
{
    if (j->s) {
        hd_path_keep(s, j);
        hd_path_save(s, j);
        if (j->stepping && !j->warm) hd_past_note(&s->past, j->o.user, &j->s->ids);
        hd_queue_leave(s, j);
    }
    if (!j->warm) {
        if (hd_job_is_cancelled(j)) s->jobs_cancelled++;
        else s->jobs_done++;
        if (j->t_admit > 0) s->job_s += (hd_now_s() - j->t_admit - s->job_s) / 8;
        s->posted = true;
    }
    forget_parked(s, j);
    hd_step_close(&j->step);
    if (j->o.grammar) hd_grammar_close(j->o.grammar);
    j->o.grammar = NULL;
    if (j->user) forget_user(s, j->user);
    hd_job_unref(j);
}

void hd_queue_fail(hd_sched *s, hd_job *j, const hd_err *err)
{
    hd_job_post_error(&s->mail, j, err);
    hd_queue_release(s, j);
}

static void drop_warm(hd_sched *s, bool all)
{
    int n = 0;
    for (hd_job **at = &s->warm, *j; (j = *at);) {
        if (!all && n++ < HD_MAX_WARM) {
            at = &j->next;
            continue;
        }
        *at = j->next;
        hd_job_unref(j);
    }
}

void hd_queue_drop_cancelled(hd_sched *s)
{
    drop_warm(s, false);
    for (int i = s->n_live - 1; i >= 0; i--)
        if (hd_job_is_cancelled(s->live[i])) hd_queue_release(s, s->live[i]);
    for (hd_user *u = s->users, *next; u; u = next) {
        next = u->next;
        for (hd_job *j = u->first, *after; j; j = after) {
            after = j->next;
            bool last = u->n_waiting + u->n_live == 1;
            if (!hd_job_is_cancelled(j)) continue;
            take(s, j);
            hd_queue_release(s, j);
            if (last) break; // and the user is gone
        }
    }
}

void hd_queue_end_all(hd_sched *s)
{
    drop_warm(s, true);
    while (s->n_live > 0) {
        hd_job_post_done(&s->mail, s->live[0], HD_END_CANCELLED);
        hd_queue_release(s, s->live[0]);
    }
    while (s->users) {
        hd_job *j = s->users->first;
        take(s, j);
        hd_job_post_done(&s->mail, j, HD_END_CANCELLED);
        hd_queue_release(s, j);
    }
}

/* ---- Parking ---- */

static void forget_parked(hd_sched *s, hd_job *j)
{
    if (s->park) hd_park_drop(s->park, j->parked);
    j->parked = NULL;
}

static void park(hd_sched *s, hd_job *j)
{
    hd_path_keep(s, j);
    /* A prompt's blocks are in the prefix cache, or soon computed again. */
    if (s->park && j->state == HD_JOB_SAYING && hd_seq_len(j->s->seq) >= HD_PAGE_TOK) j->parked = hd_park_put(s->park, j->s);
    hd_ids_free(&j->ids);
    j->ids = j->s->ids;
    j->s->ids = (hd_ids){0};
    hd_queue_leave(s, j);
    put(s, j, true);
    s->parkings++;
}

/* The youngest living one, of user u or of any; never the last one that lives. */
static hd_job *youngest(const hd_sched *s, const hd_user *u)
{
    hd_job *j = NULL;
    for (int i = 0; s->n_live > 1 && i < s->n_live; i++)
        if ((!u || s->live[i]->user == u) && (!j || s->live[i]->number > j->number)) j = s->live[i];
    return j;
}

bool hd_queue_make_room(hd_sched *s, int64_t n)
{
    for (;;) {
        int64_t lack = n - hd_free_pages(s);
        if (lack <= 0 || hd_prefix_evict(s->prefix, lack) >= lack) return true;
        if (s->disk && hd_disk_busy(s->disk)) { // it holds pages that could go
            hd_disk_wait(s->disk);
            continue;
        }
        hd_job *j = youngest(s, NULL);
        if (!j) return false;
        park(s, j);
    }
}

/* ---- Admission ---- */

/* Pages that a job of n ids is promised. */
static int64_t promise(const hd_sched *s, const hd_job *j, int64_t n)
{
    int64_t end = n + HD_GROW_TOK, left = j->o.max_tok - j->step.r.n_tok;
    if (j->o.max_tok > 0 && end > n + left) end = n + left;
    if (end > s->e->ctx_tok) end = s->e->ctx_tok;
    return hd_pages_of(end);
}

/* What the living ones have still to take. */
static int64_t outstanding(const hd_sched *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->n_live; i++) {
        hd_job *j = s->live[i];
        int64_t more = promise(s, j, j->s->ids.n) - hd_pages_of(hd_seq_len(j->s->seq));
        if (more > 0) n += more;
    }
    return n;
}

/* Can n pages be had without taking them from anybody who lives? */
static bool fits(const hd_sched *s, int64_t n)
{
    int64_t lack = n - hd_free_pages(s);
    return lack <= 0 || hd_prefix_idle(s->prefix) >= lack;
}

/* The prompt as an earlier text spells it, if that is known further than the prompt itself. */
static void respell(hd_sched *s, hd_job *j)
{
    int64_t known = 0;
    hd_ids other = {0};
    const hd_block *b = NULL;
    for (; (known + 1) * HD_PAGE_TOK < j->ids.n; known++) {
        uint64_t owner = (known + 1) * HD_PAGE_TOK <= j->o.shared_tok ? 0 : j->o.user;
        if (!(b = hd_prefix_find(s->prefix, b, owner, j->ids.id + known * HD_PAGE_TOK))) break;
    }
    if (!hd_past_spelled(&s->past, s->e->tok, j->o.user, &j->ids, known * HD_PAGE_TOK, &other)) return;
    if (other.n >= s->e->ctx_tok) {
        hd_ids_free(&other);
        return;
    }
    hd_ids_free(&j->ids);
    j->ids = other;
}

/* A session with the job's timeline, as far as it is known: from the prefix cache, or from
 * where it was parked. */
static hd_status open_session(hd_sched *s, hd_job *j, hd_err *err)
{
    hd_status st;
    bool later;
    const int guesses = s->o.draft_max > 0 ? s->o.draft_max : s->o.draft == HD_DRAFT_LOOKUP ? HD_DRAFT_ROWS : 0;
    HD_TRY(hd_session_open(&j->s, s->e, err));
    if (s->o.draft != HD_DRAFT_NONE && !j->warm) HD_TRY(hd_session_draft(j->s, s->o.draft, s->o.small, guesses, err));
    HD_TRY(hd_session_queue(j->s, j->ids.id, j->ids.n, err));
    s->disk_budget = 0; // from memory: the disk is read when it lives
    HD_TRY(hd_path_find(s, j, &later, err));
fail:
    return st;
}

/* What was put aside, where it knows more than the prefix cache.  False: it is still on its way, which those
 * who live need not wait for. */
static bool take_up(hd_sched *s, hd_job *j)
{
    if (!j->parked || j->n_known >= (j->ids.n - 1) / HD_PAGE_TOK) return true;
    hd_parked_where where = hd_park_want(s->park, j->parked, s->n_live == 0);
    if (where == HD_PARKED_LATER) return false;
    if (where == HD_PARKED_LOST) return true;
    hd_prefix_evict(s->prefix, hd_pages_of(j->ids.n) - j->n_known - hd_free_pages(s));
    if (hd_park_restore(s->park, j->parked, j->s, NULL) == HD_OK) hd_path_keep(s, j); // else it is computed again
    return true;
}

/* Let a job in; *fits false: there is no room yet. */
static hd_status start(hd_sched *s, hd_job *j, bool *in, hd_err *err)
{
    hd_status st;
    *in = false;
    if (!is_parked(j) && !j->warm) respell(s, j);
    j->cached_tok = is_parked(j) ? j->cached_tok : 0;
    HD_TRY(open_session(s, j, err));
    int64_t need = promise(s, j, j->ids.n) - j->n_known + outstanding(s);
    if (!fits(s, need) && s->n_live > 0) goto fail;
    *in = take_up(s, j);
fail:
    if (!*in) {
        hd_session_close(j->s);
        j->s = NULL;
        j->last = NULL;
        j->n_known = 0;
    }
    return st;
}

static void enter(hd_sched *s, hd_job *j)
{
    forget_parked(s, j);
    hd_ids_free(&j->ids);
    s->live[s->n_live++] = j;
    j->user->n_live++;
    j->user->turn = ++s->turn;
    j->state = HD_JOB_READING;
    j->told_position = -1;
    j->step.s = j->s;
    if (j->t_admit == 0) {
        j->t_admit = hd_now_s();
        hd_sampler_reset(j->p, j->s->ids.id, j->s->ids.n);
    }
}

static hd_user *next_user(const hd_sched *s)
{
    hd_user *best = NULL;
    for (hd_user *u = s->users; u; u = u->next)
        if (u->n_waiting > 0 &&
            (!best || u->n_live < best->n_live || (u->n_live == best->n_live && u->turn < best->turn)))
            best = u;
    return best;
}

/* A place for u: a free one, or, when u has none at all, one of a user who has several. */
static bool make_place(hd_sched *s, const hd_user *u)
{
    hd_user *most = NULL;
    if (s->n_live < s->o.max_live) return true;
    if (u->n_live > 0) return false;
    for (hd_user *v = s->users; v; v = v->next)
        if (v->n_live > 1 && (!most || v->n_live > most->n_live)) most = v;
    hd_job *j = most ? youngest(s, most) : NULL;
    if (j) park(s, j);
    return j != NULL;
}

static void admit_warm(hd_sched *s)
{
    hd_job *j = s->warm;
    hd_err err;
    bool in = false;
    if (!j || s->n_live > 0 || s->n_waiting > 0) return;
    s->warm = j->next;
    hd_status st = user_of(s, j->o.user, &j->user, &err);
    if (st == HD_OK) st = start(s, j, &in, &err);
    if (in) enter(s, j);
    else hd_queue_release(s, j);
}

/* What computes for later makes room for who wants an answer now; its blocks are kept, and it
 * goes on afterwards. */
static void set_aside_warm(hd_sched *s)
{
    hd_job *j = s->n_live == 1 && s->live[0]->warm && s->n_waiting > 0 ? s->live[0] : NULL;
    if (!j) return;
    hd_user *u = j->user;
    hd_path_keep(s, j);
    j->ids = j->s->ids;
    j->s->ids = (hd_ids){0};
    hd_queue_leave(s, j);
    j->user = NULL;
    j->t_admit = 0;
    forget_user(s, u);
    j->next = s->warm;
    s->warm = j;
}

void hd_queue_admit(hd_sched *s)
{
    set_aside_warm(s);
    while (s->changed) {
        hd_err err;
        bool in = false;
        hd_user *u = next_user(s);
        if (!u || !make_place(s, u)) break;
        hd_job *j = u->first;
        hd_status st = start(s, j, &in, &err);
        if (st == HD_OK && !in) break;
        take(s, j);
        if (st == HD_OK) enter(s, j);
        else hd_queue_fail(s, j, &err);
    }
    admit_warm(s);
}

/* ---- Positions ---- */

/* Round after round each waiting user gets one in: before the i-th of user u come the first i of everybody
 * else's, and the i-th of those who are before u. */
static int position_of(const hd_sched *s, const hd_user *u, int i)
{
    int n = i;
    for (const hd_user *v = s->users; v; v = v->next) {
        if (v == u) continue;
        bool before = v->n_live < u->n_live || (v->n_live == u->n_live && v->turn < u->turn);
        int most = i + before;
        n += v->n_waiting < most ? v->n_waiting : most;
    }
    return n;
}

void hd_queue_tell(hd_sched *s)
{
    if (!s->changed) return;
    s->changed = false;
    for (hd_user *u = s->users; u; u = u->next) {
        int i = 0;
        for (hd_job *j = u->first; j; j = j->next, i++) {
            if (is_parked(j)) continue; // it is being answered, as far as anybody can see
            hd_job_post_position(&s->mail, j, position_of(s, u, i));
            s->posted = true;
        }
    }
}
