/* Numbers: a range of whole numbers as digits, and decimals as whole numbers of their last place.
 *
 * The numbers from lo to hi of one length share their first digits as far as lo and hi do; at the first digit
 * that differs there are three ways on: lo's digit and then anything from lo's rest up, a digit between and
 * then anything, hi's digit and then anything up to hi's rest. */
#include <math.h>
#include <string.h>

#include "infer/schema_impl.h"

enum { DIGITS = 18, PLACES = 6 };
#define MOST_WHOLE ((int64_t)999999999999999999) // 18 digits: any reader's integers hold them
#define MOST_PART  ((int64_t)1000000000)         // decimals up to here are exact to the last of 6 places

typedef struct {
    hd_schema *s;
    char lo[DIGITS + 2], hi[DIGITS + 2];
    int n, point; // digits; those behind the point
} digits;

static void digit(digits *d, int32_t seq, int at, char from, char to)
{
    hd_byteset set = {{0}};
    hd_builder *b = d->s->b;
    if (d->point > 0 && at == d->n - d->point) hd_node_append(b, seq, hd_node_text(b, "."));
    hd_byteset_add(&set, (uint8_t)from, (uint8_t)to);
    hd_node_append(b, seq, hd_node_bytes(b, &set));
}

/* Digits at..n: those from `from` to `to` in place `at`, then any. */
static void free_way(digits *d, int32_t alt, int at, char from, char to)
{
    if (from > to) return;
    int32_t seq = hd_node_append(d->s->b, alt, hd_node_new(d->s->b, HD_NODE_SEQ, 0, 0));
    digit(d, seq, at, from, to);
    for (int i = at + 1; i < d->n; i++) digit(d, seq, i, '0', '9');
}

/* Digits at..n, not below lo (low) and not above hi (high). */
static int32_t bounded(digits *d, int at, bool low, bool high)
{
    hd_builder *b = d->s->b;
    int32_t seq = hd_node_new(b, HD_NODE_SEQ, 0, 0);
    for (; at < d->n && low && high && d->lo[at] == d->hi[at]; at++) digit(d, seq, at, d->lo[at], d->lo[at]);
    if (at == d->n || b->st != HD_OK) return seq;
    int32_t alt = hd_node_append(b, seq, hd_node_new(b, HD_NODE_ALT, 0, 0));
    if (low) {
        int32_t way = hd_node_append(b, alt, hd_node_new(b, HD_NODE_SEQ, 0, 0));
        digit(d, way, at, d->lo[at], d->lo[at]);
        if (at + 1 < d->n) hd_node_append(b, way, bounded(d, at + 1, true, false));
    }
    if (high) {
        int32_t way = hd_node_append(b, alt, hd_node_new(b, HD_NODE_SEQ, 0, 0));
        digit(d, way, at, d->hi[at], d->hi[at]);
        if (at + 1 < d->n) hd_node_append(b, way, bounded(d, at + 1, false, true));
    }
    free_way(d, alt, at, low ? (char)(d->lo[at] + 1) : '0', high ? (char)(d->hi[at] - 1) : '9');
    return seq;
}

static void spell(char *out, int64_t v, int n)
{
    for (out[n] = 0; n > 0; v /= 10) out[--n] = (char)('0' + v % 10);
}

/* Numbers from lo to hi, 0 <= lo, whose last `point` digits stand behind the point. */
static void not_negative(hd_schema *s, int32_t alt, int64_t lo, int64_t hi, int point, const char *sign)
{
    digits d = {.s = s, .point = point};
    int64_t first = 0, last = 9;
    for (int i = 0; i < point; i++) last = last * 10 + 9;
    for (d.n = point + 1; d.n <= DIGITS;
         d.n++, first = last + 1, last = last < MOST_WHOLE ? last * 10 + 9 : last) {
        int64_t a = lo > first ? lo : first, b = hi < last ? hi : last;
        if (a > b) continue;
        spell(d.lo, a, d.n);
        spell(d.hi, b, d.n);
        int32_t seq = hd_node_append(s->b, alt, hd_node_new(s->b, HD_NODE_SEQ, 0, 0));
        hd_node_append(s->b, seq, hd_node_text(s->b, sign));
        hd_node_append(s->b, seq, bounded(&d, 0, true, true));
    }
}

static void range(hd_schema *s, int32_t alt, int64_t lo, int64_t hi, int point)
{
    if (lo < 0 && lo <= hi) not_negative(s, alt, hi < 0 ? -hi : 1, -lo, point, "-");
    if (hi >= 0 && lo <= hi) not_negative(s, alt, lo > 0 ? lo : 0, hi, point, "");
}

/* ---- Bounds ---- */

typedef struct {
    double low, high;          // infinite: none
    bool above, below;         // the bounds themselves are left out
    int64_t low_int, high_int; // the same for whole numbers, inclusive
} bounds;

static void tighten(bounds *b, const json_t *v, bool is_low, bool strict)
{
    double x = json_number_value(v);
    double whole = is_low ? ceil(x) : floor(x);
    bool exact = json_is_integer(v) || whole == x;
    int64_t n = json_is_integer(v)            ? json_integer_value(v)
                : whole > (double)MOST_WHOLE  ? MOST_WHOLE + 1
                : whole < -(double)MOST_WHOLE ? -MOST_WHOLE - 1
                                              : (int64_t)whole;
    if (n > MOST_WHOLE + 1) n = MOST_WHOLE + 1;
    if (n < -MOST_WHOLE - 1) n = -MOST_WHOLE - 1;
    if (is_low) {
        n += strict && exact;
        if (n > b->low_int) b->low_int = n;
        b->above = x > b->low ? strict : x == b->low ? b->above || strict : b->above;
        if (x > b->low) b->low = x;
    } else {
        n -= strict && exact;
        if (n < b->high_int) b->high_int = n;
        b->below = x < b->high ? strict : x == b->high ? b->below || strict : b->below;
        if (x < b->high) b->high = x;
    }
}

/* exclusiveMinimum is a number, or (in older schemas) makes `minimum` strict. */
static bool read_bounds(hd_schema *s, const json_t *j, bounds *b, const hd_where *w)
{
    static const char *const keys[2][2] = {{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}};
    bool any = false;
    *b = (bounds){-INFINITY, INFINITY, false, false, -MOST_WHOLE, MOST_WHOLE};
    for (int i = 0; i < 2; i++) {
        const json_t *plain = json_object_get(j, keys[i][0]), *strict = json_object_get(j, keys[i][1]);
        if ((plain && !json_is_number(plain)) ||
            (strict && !json_is_number(strict) && !json_is_boolean(strict))) {
            hd_schema_fail(s, w, HD_FORMAT, "\"%s\" and \"%s\" must be numbers", keys[i][0], keys[i][1]);
            return false;
        }
        if (plain) tighten(b, plain, i == 0, json_is_true(strict));
        if (strict && json_is_number(strict)) tighten(b, strict, i == 0, true);
        any = any || plain || json_is_number(strict);
    }
    return any;
}

/* Decimals of `places` places: k / 10^places is rounded once, as a reader of the text rounds it, so the
 * corrections below see what the reader will see. */
static void decimals(hd_schema *s, int32_t alt, const bounds *b, int places)
{
    double unit = pow(10, places), most = (double)MOST_PART;
    double low = b->low > -most ? b->low : -most, high = b->high < most ? b->high : most;
    if (low > high) return;
    int64_t lo = (int64_t)floor(low * unit) - 1, hi = (int64_t)ceil(high * unit) + 1;
    while ((double)lo / unit < low || (b->above && (double)lo / unit <= b->low)) lo++;
    while ((double)hi / unit > high || (b->below && (double)hi / unit >= b->high)) hi--;
    range(s, alt, lo, hi, places);
}

static void add_digits(hd_builder *b, int32_t seq, const char *before, char first, int32_t m, int32_t n)
{
    hd_byteset set = {{0}};
    hd_byteset_add(&set, first, '9');
    if (before[0]) hd_node_append(b, seq, hd_node_text(b, before));
    hd_node_append(b, seq, hd_node_repeat(b, hd_node_bytes(b, &set), m, n));
}

/* Without bounds: -? digits, then for numbers perhaps a fraction and an exponent that no reader's
 * double overflows. */
static int32_t unbounded(hd_schema *s, bool integer)
{
    int32_t rule;
    hd_builder *b = s->b;
    if (!hd_schema_rule(s, integer ? "integer" : "number", &rule)) return hd_node_call(b, rule);
    int32_t seq = hd_node_new(b, HD_NODE_SEQ, 0, 0);
    hd_node_append(b, seq, hd_node_repeat(b, hd_node_text(b, "-"), 0, 1));
    int32_t whole = hd_node_append(b, seq, hd_node_new(b, HD_NODE_ALT, 0, 0));
    hd_node_append(b, whole, hd_node_text(b, "0"));
    int32_t more = hd_node_append(b, whole, hd_node_new(b, HD_NODE_SEQ, 0, 0));
    add_digits(b, more, "", '1', 1, 1);
    add_digits(b, more, "", '0', 0, integer ? DIGITS - 1 : 14);
    if (!integer) {
        int32_t fraction = hd_node_new(b, HD_NODE_SEQ, 0, 0), power = hd_node_new(b, HD_NODE_SEQ, 0, 0);
        add_digits(b, fraction, ".", '0', 1, 14);
        hd_node_append(b, seq, hd_node_repeat(b, fraction, 0, 1));
        hd_byteset e = {{0}}, sign = {{0}};
        hd_byteset_add(&e, 'e', 'e');
        hd_byteset_add(&e, 'E', 'E');
        hd_byteset_add(&sign, '+', '+');
        hd_byteset_add(&sign, '-', '-');
        hd_node_append(b, power, hd_node_bytes(b, &e));
        hd_node_append(b, power, hd_node_repeat(b, hd_node_bytes(b, &sign), 0, 1));
        add_digits(b, power, "", '0', 1, 2);
        hd_node_append(b, seq, hd_node_repeat(b, power, 0, 1));
    }
    hd_schema_body(s, rule, seq);
    return hd_node_call(b, rule);
}

int32_t hd_schema_number(hd_schema *s, const json_t *j, bool integer, const hd_where *w)
{
    bounds b;
    if (!read_bounds(s, j, &b, w)) return unbounded(s, integer);
    int32_t alt = hd_node_new(s->b, HD_NODE_ALT, 0, 0);
    range(s, alt, b.low_int, b.high_int, 0);
    for (int places = 1; places <= PLACES && !integer; places++) decimals(s, alt, &b, places);
    if (s->b->st == HD_OK && s->b->node[alt].last < 0) return hd_node_never(s->b);
    return alt;
}
