/* A machine of one state a kind of byte that may come next, and a stack of brackets, one bit each. */
#include "serve/json_walk.h"

#include <string.h>

enum {
    AT_START,
    AT_FIRST_KEY,   // or "}"
    AT_KEY,
    AT_COLON,
    AT_FIRST_VALUE, // or "]"
    AT_VALUE,
    AT_NEXT,        // "," or a closing bracket
    AT_STRING,
    AT_ESCAPE,
    AT_HEX,
    AT_PAIR,        // the backslash of a pair's second half
    AT_PAIR_U,
    AT_WORD,
    AT_MINUS,
    AT_ZERO,        // a number may end here, and so below where it says
    AT_INT,         // may end
    AT_POINT,
    AT_FRACTION,    // may end
    AT_E,
    AT_SIGN,
    AT_EXPONENT,    // may end
    AT_END,
};

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool in_object(const hd_json_walk *w) { return w->is_object[(w->depth - 1) / 8] >> ((w->depth - 1) % 8) & 1; }

static bool open_bracket(hd_json_walk *w, bool object)
{
    if (w->depth == HD_WALK_DEPTH) return false;
    uint8_t *byte = &w->is_object[w->depth / 8], bit = (uint8_t)(1 << w->depth % 8);
    *byte = object ? *byte | bit : *byte & (uint8_t)~bit;
    w->depth++;
    w->at = object ? AT_FIRST_KEY : AT_FIRST_VALUE;
    return true;
}

static bool close_bracket(hd_json_walk *w, bool object)
{
    if (in_object(w) != object) return false;
    w->at = --w->depth ? AT_NEXT : AT_END;
    return true;
}

static bool begin_string(hd_json_walk *w, bool key)
{
    w->key = key;
    w->at = AT_STRING;
    return true;
}

static bool begin_word(hd_json_walk *w, const char *rest)
{
    w->rest = rest;
    w->at = AT_WORD;
    return true;
}

static bool value(hd_json_walk *w, char c)
{
    if (c == '{' || c == '[') return open_bracket(w, c == '{');
    if (c == '"') return begin_string(w, false);
    if (c == 't') return begin_word(w, "rue");
    if (c == 'f') return begin_word(w, "alse");
    if (c == 'n') return begin_word(w, "ull");
    if (c != '-' && !is_digit(c)) return false;
    w->at = c == '-' ? AT_MINUS : c == '0' ? AT_ZERO : AT_INT;
    return true;
}

static bool next(hd_json_walk *w, char c)
{
    if (c == '}' || c == ']') return close_bracket(w, c == '}');
    if (c != ',') return false;
    w->at = in_object(w) ? AT_KEY : AT_VALUE;
    return true;
}

/* A byte of a character beyond ASCII (Unicode 15, table 3-7): the first says how many follow and what
 * the second may be. */
static bool wide(hd_json_walk *w, uint8_t c)
{
    if (w->more > 0) {
        bool good = c >= w->least && c <= w->most;
        w->more--;
        w->least = 0x80, w->most = 0xbf;
        return good;
    }
    w->more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    w->least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    w->most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return c >= 0xc2 && c <= 0xf4;
}

static bool string(hd_json_walk *w, char c)
{
    if (w->more > 0 || (uint8_t)c >= 0x80) return wide(w, (uint8_t)c);
    if (c == '"') w->at = w->key ? AT_COLON : AT_NEXT;
    else if (c == '\\') w->at = AT_ESCAPE;
    return (unsigned char)c >= 0x20;
}

static bool escape(hd_json_walk *w, char c)
{
    w->at = c == 'u' ? AT_HEX : AT_STRING;
    w->digits = 0;
    w->code = 0;
    return c && strchr("\"\\/bfnrtu", c);
}

static bool hex(hd_json_walk *w, char c)
{
    const char *digits = "0123456789abcdef", *d = c ? strchr(digits, c | (c >= 'A' ? 0x20 : 0)) : NULL;
    if (!d) return false;
    w->code = w->code << 4 | (unsigned)(d - digits);
    if (++w->digits < 4) return true;
    bool low = w->code >= 0xdc00 && w->code <= 0xdfff, high = w->code >= 0xd800 && w->code <= 0xdbff;
    if (low != (w->high != 0)) return false;
    w->high = high ? w->code : 0;
    w->at = high ? AT_PAIR : AT_STRING;
    return true;
}

/* A digit takes a number on; "." and "e" where they may; else it ends, and the byte is what comes next. */
static bool number(hd_json_walk *w, char c)
{
    bool digit = is_digit(c), e = c == 'e' || c == 'E';
    switch (w->at) {
    case AT_MINUS: w->at = c == '0' ? AT_ZERO : AT_INT; return digit;
    case AT_POINT: w->at = AT_FRACTION; return digit;
    case AT_E: w->at = digit ? AT_EXPONENT : AT_SIGN; return digit || c == '+' || c == '-';
    case AT_SIGN: w->at = AT_EXPONENT; return digit;
    default: break;
    }
    if (digit) return w->at != AT_ZERO;
    if (c == '.' && (w->at == AT_ZERO || w->at == AT_INT)) w->at = AT_POINT;
    else if (e && w->at != AT_EXPONENT) w->at = AT_E;
    else {
        w->at = AT_NEXT;
        return is_blank(c) || next(w, c);
    }
    return true;
}

static bool step(hd_json_walk *w, char c)
{
    if (is_blank(c) && (w->at == AT_FIRST_KEY || w->at == AT_KEY || w->at == AT_COLON || w->at == AT_FIRST_VALUE ||
                        w->at == AT_VALUE || w->at == AT_NEXT))
        return true;
    switch (w->at) {
    case AT_START: return c == '{' && open_bracket(w, true);
    case AT_FIRST_KEY:
        if (c == '}') return close_bracket(w, true);
        return c == '"' && begin_string(w, true);
    case AT_KEY: return c == '"' && begin_string(w, true);
    case AT_COLON: w->at = AT_VALUE; return c == ':';
    case AT_FIRST_VALUE:
        if (c == ']') return close_bracket(w, false);
        return value(w, c);
    case AT_VALUE: return value(w, c);
    case AT_NEXT: return next(w, c);
    case AT_STRING: return string(w, c);
    case AT_ESCAPE: return escape(w, c);
    case AT_HEX: return hex(w, c);
    case AT_PAIR: w->at = AT_PAIR_U; return c == '\\';
    case AT_PAIR_U:
        w->at = AT_HEX;
        w->digits = 0;
        w->code = 0;
        return c == 'u';
    case AT_WORD:
        if (c != *w->rest) return false;
        if (!*++w->rest) w->at = AT_NEXT;
        return true;
    case AT_END: return false;
    default: return number(w, c);
    }
}

hd_walk_verdict hd_json_walk_feed(hd_json_walk *w, const char *p, size_t n, size_t *used)
{
    for (*used = 0; *used < n && w->at != AT_END; ++*used)
        if (!step(w, p[*used])) return HD_WALK_BAD;
    return w->at == AT_END ? HD_WALK_ENDED : HD_WALK_GOING;
}
