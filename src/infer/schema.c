/* JSON schemas to rules.  The text is compact JSON in which a single space may follow `{ [ : ,`
 * and precede `] }`.
 *
 * Known keywords (draft 2020-12's meaning, with the narrowings below):
 *
 *     any type   type (also an array of types), enum, const, anyOf, oneOf, allOf, $ref (within the document),
 *                $defs, definitions, nullable
 *     objects    properties, required, additionalProperties
 *     arrays     items, prefixItems, minItems, maxItems
 *     strings    minLength, maxLength, pattern, format (date, time, date-time, uuid, email, ipv4)
 *     numbers    minimum, maximum, exclusiveMinimum, exclusiveMaximum
 *     ignored    title, description, default, examples, deprecated, readOnly, writeOnly, $schema, $id,
 *                $comment
 *
 * Any other keyword is refused by name, for a text that looked as if it kept to a schema, and did
 * not, helps nobody.
 *
 * A grammar may be narrower than its schema, never wider.  It is narrower here: members come in the order of
 * `properties`; without additionalProperties an object with `properties` has no other members; a schema
 * without a type but with keywords of some types gives values of those; other keys have no escapes; numbers
 * have at most 18 digits; counts end at HD_GRAMMAR_REPEAT; nesting ends at HD_GRAMMAR_DEPTH. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "infer/schema_impl.h"

/* ---- Messages ---- */

static void spell(const hd_where *w, char *out, size_t room)
{
    if (w->up) spell(w->up, out, room);
    size_t n = strlen(out);
    if (!w->up) snprintf(out, room, "#");
    else if (w->key) snprintf(out + n, room - n, "/%.60s", w->key);
    else snprintf(out + n, room - n, "/%zu", w->index);
}

hd_status hd_schema_fail(hd_schema *s, const hd_where *w, hd_status st, const char *fmt, ...)
{
    char where[256] = "", why[256];
    if (s->b->st != HD_OK) return s->b->st;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    spell(w, where, sizeof where);
    return hd_builder_fail(s->b, st, "schema: %s: %s", where, why);
}

/* ---- Keywords ---- */

/* What a keyword speaks of; 0: nothing that a value must keep to. */
static const struct {
    const char *name;
    int types;
} keywords[] = {
    {"type", HD_TYPE_ALL},
    {"enum", HD_TYPE_ALL},
    {"const", HD_TYPE_ALL},
    {"anyOf", HD_TYPE_ALL},
    {"oneOf", HD_TYPE_ALL},
    {"allOf", HD_TYPE_ALL},
    {"$ref", HD_TYPE_ALL},
    {"nullable", HD_TYPE_ALL},
    {"properties", HD_TYPE_OBJECT},
    {"required", HD_TYPE_OBJECT},
    {"additionalProperties", HD_TYPE_OBJECT},
    {"items", HD_TYPE_ARRAY},
    {"prefixItems", HD_TYPE_ARRAY},
    {"minItems", HD_TYPE_ARRAY},
    {"maxItems", HD_TYPE_ARRAY},
    {"minLength", HD_TYPE_STRING},
    {"maxLength", HD_TYPE_STRING},
    {"pattern", HD_TYPE_STRING},
    {"format", HD_TYPE_STRING},
    {"minimum", HD_TYPE_NUMBER},
    {"maximum", HD_TYPE_NUMBER},
    {"exclusiveMinimum", HD_TYPE_NUMBER},
    {"exclusiveMaximum", HD_TYPE_NUMBER},
    {"$defs", 0},
    {"definitions", 0},
    {"title", 0},
    {"description", 0},
    {"default", 0},
    {"examples", 0},
    {"deprecated", 0},
    {"readOnly", 0},
    {"writeOnly", 0},
    {"$schema", 0},
    {"$id", 0},
    {"$comment", 0},
};

/* Every key of j is known; *types: those that keywords other than ALL's speak of, *all: there are
 * some of ALL's, too. */
static bool read_keywords(hd_schema *s, const json_t *j, int *types, bool *all, const hd_where *w)
{
    const char *key;
    json_t *v;
    *types = 0;
    *all = false;
    json_object_foreach((json_t *)j, key, v)
    {
        size_t i = 0, n = sizeof keywords / sizeof keywords[0];
        while (i < n && strcmp(keywords[i].name, key) != 0) i++;
        if (i == n) {
            hd_schema_fail(s, w, HD_UNSUPPORTED, "keyword \"%.80s\" is not supported", key);
            return false;
        }
        if (keywords[i].types == HD_TYPE_ALL) *all = true;
        else *types |= keywords[i].types;
    }
    return true;
}

bool hd_schema_count(hd_schema *s, const json_t *j, const char *keyword, int32_t *v, const hd_where *w)
{
    const json_t *c = json_object_get(j, keyword);
    if (!c) return false;
    double x = json_number_value(c);
    if (!json_is_number(c) || x < 0 || x != (double)(int64_t)(x < 1e15 ? x : 1e15)) {
        if (!(json_is_number(c) && x >= 1e15)) {
            hd_schema_fail(s, w, HD_FORMAT, "\"%s\" must be a whole number, at least 0", keyword);
            return false;
        }
    }
    *v = x > HD_GRAMMAR_REPEAT ? HD_GRAMMAR_REPEAT + 1 : (int32_t)x;
    return true;
}

static int type_named(const char *name)
{
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    for (int i = 0; name && i < 7; i++)
        if (strcmp(names[i], name) == 0) return i == 3 ? HD_TYPE_NUMBER | HD_TYPE_INTEGER : 1 << i;
    return 0;
}

int hd_schema_types(hd_schema *s, const json_t *j, const hd_where *w)
{
    const json_t *t = json_object_get(j, "type"), *one;
    size_t i;
    int types = 0;
    if (!t) return HD_TYPE_ALL;
    if (json_is_string(t)) types = type_named(json_string_value(t));
    json_array_foreach(t, i, one)
    {
        int bit = type_named(json_string_value(one));
        if (!bit) types = 0;
        if (!bit) break;
        types |= bit;
    }
    if (!types && !(json_is_array(t) && json_array_size(t) == 0))
        hd_schema_fail(
            s, w, HD_FORMAT,
            "\"type\" must be null, boolean, integer, number, string, array, object, or a list of these");
    if (json_is_true(json_object_get(j, "nullable"))) types |= HD_TYPE_NULL;
    return types;
}

/* ---- Rules ---- */

bool hd_schema_rule(hd_schema *s, const char *name, int32_t *rule)
{
    *rule = hd_rule_named(s->b, name, strlen(name));
    return s->b->st == HD_OK && s->b->rule[*rule].body < 0;
}

void hd_schema_body(hd_schema *s, int32_t rule, int32_t body)
{
    if (s->b->st == HD_OK) s->b->rule[rule].body = body ? body : hd_node_new(s->b, HD_NODE_EMPTY, 0, 0);
}

static int32_t maybe_space(hd_schema *s) { return hd_node_repeat(s->b, hd_node_text(s->b, " "), 0, 1); }

static int32_t comma_rule(hd_schema *s)
{
    int32_t rule;
    if (hd_schema_rule(s, ",", &rule)) {
        int32_t seq = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
        hd_node_append(s->b, seq, hd_node_text(s->b, ","));
        hd_node_append(s->b, seq, maybe_space(s));
        hd_schema_body(s, rule, seq);
    }
    return rule;
}

/* open, what is in it, close, with their spaces. */
static int32_t bracketed(hd_schema *s, const char *open, int32_t inside, const char *close)
{
    int32_t seq = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
    hd_node_append(s->b, seq, hd_node_text(s->b, open));
    hd_node_append(s->b, seq, maybe_space(s));
    hd_node_append(s->b, seq, inside);
    hd_node_append(s->b, seq, maybe_space(s));
    hd_node_append(s->b, seq, hd_node_text(s->b, close));
    return seq;
}

/* ---- References ---- */

/* One step of a JSON pointer: ~1 is /, ~0 is ~, %XX a byte. */
static size_t pointer_step(const char *p, char *out, size_t room)
{
    size_t i = 0, n = 0;
    while (p[i] && p[i] != '/') {
        char c = p[i++];
        unsigned x;
        if (c == '~' && (p[i] == '0' || p[i] == '1')) c = p[i++] == '0' ? '~' : '/';
        else if (c == '%' && strspn(p + i, "0123456789abcdefABCDEF") >= 2 && sscanf(p + i, "%2x", &x) == 1 &&
                 x > 0) {
            c = (char)x;
            i += 2;
        }
        if (n + 1 < room) out[n++] = c;
    }
    out[n] = 0;
    return i;
}

const json_t *hd_schema_target(hd_schema *s, const json_t *ref, const hd_where *w)
{
    const char *p = json_string_value(ref);
    const json_t *at = s->root;
    char key[512];
    if (!p || p[0] != '#' || (p[1] && p[1] != '/')) {
        hd_schema_fail(s, w, HD_UNSUPPORTED, "\"$ref\" must be a way in this document: #/...");
        return NULL;
    }
    for (p++; *p == '/' && at;) {
        p += 1 + pointer_step(p + 1, key, sizeof key);
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10)) : json_object_get(at, key);
    }
    if (!at) hd_schema_fail(s, w, HD_FORMAT, "\"$ref\": %.120s: there is nothing", json_string_value(ref));
    return at;
}

/* Each target is a rule, whose body is read later: so a schema may refer to itself. */
static int32_t reference(hd_schema *s, const json_t *ref, const hd_where *w)
{
    int32_t rule;
    char name[600];
    const json_t *target = hd_schema_target(s, ref, w);
    if (!target) return 0;
    if (json_string_length(ref) > 512) {
        hd_schema_fail(s, w, HD_LIMIT, "\"$ref\" is too long");
        return 0;
    }
    snprintf(name, sizeof name, "$ref %s", json_string_value(ref));
    bool known = false;
    if (hd_schema_rule(s, name, &rule)) {
        for (int i = 0; i < s->n_ref; i++) known = known || s->ref_rule[i] == rule;
        if (!known && s->n_ref == s->cap_ref) {
            int cap = s->cap_ref ? s->cap_ref * 2 : 16;
            s->b->st = hd_realloc(&s->ref, (size_t)cap * sizeof *s->ref, s->b->err);
            if (s->b->st == HD_OK)
                s->b->st = hd_realloc(&s->ref_rule, (size_t)cap * sizeof *s->ref_rule, s->b->err);
            if (s->b->st == HD_OK) s->cap_ref = cap;
        }
        if (!known && s->b->st == HD_OK) {
            s->ref[s->n_ref] = target;
            s->ref_rule[s->n_ref++] = rule;
        }
    }
    return hd_node_call(s->b, rule);
}

/* ---- Any value ---- */

static int32_t any_members(hd_schema *s, int32_t key, int32_t value_rule)
{
    int32_t member = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
    hd_node_append(s->b, member, key);
    hd_node_append(s->b, member, hd_node_text(s->b, ":"));
    hd_node_append(s->b, member, maybe_space(s));
    hd_node_append(s->b, member, hd_node_call(s->b, value_rule));
    return hd_rule_anonymous(s->b, member);
}

static int32_t any_rule(hd_schema *s);

static int32_t any_object(hd_schema *s)
{
    int32_t rule;
    if (hd_schema_rule(s, "any object", &rule)) {
        int32_t extra = any_members(s, hd_schema_other_key(s, NULL, 0), any_rule(s));
        int32_t members = hd_node_new(s->b, HD_NODE_MEMBERS, comma_rule(s), extra);
        hd_schema_body(s, rule, bracketed(s, "{", members, "}"));
    }
    return hd_node_call(s->b, rule);
}

static int32_t list_of(hd_schema *s, int32_t item_rule)
{
    int32_t members = hd_node_new(s->b, HD_NODE_MEMBERS, comma_rule(s), item_rule);
    return bracketed(s, "[", members, "]");
}

/* Objects contain values: the rule is known by its name before it has a body. */
static int32_t any_rule(hd_schema *s)
{
    int32_t rule;
    if (!hd_schema_rule(s, "any", &rule)) return rule;
    static const char *const words[] = {"null", "true", "false"};
    int32_t alt = hd_node_new(s->b, HD_NODE_ALT, 0, 0);
    hd_schema_body(s, rule, alt);
    for (int i = 0; i < 3; i++) hd_node_append(s->b, alt, hd_node_text(s->b, words[i]));
    hd_node_append(s->b, alt, hd_schema_any_string(s));
    hd_node_append(s->b, alt, hd_schema_number(s, NULL, false, NULL));
    hd_node_append(s->b, alt, list_of(s, rule));
    hd_node_append(s->b, alt, any_object(s));
    return rule;
}

/* ---- Enumerations ---- */

static int type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL: return HD_TYPE_NULL;
    case JSON_TRUE:
    case JSON_FALSE: return HD_TYPE_BOOLEAN;
    case JSON_INTEGER: return HD_TYPE_INTEGER;
    case JSON_REAL: return HD_TYPE_NUMBER;
    case JSON_STRING: return HD_TYPE_STRING;
    case JSON_ARRAY: return HD_TYPE_ARRAY;
    case JSON_OBJECT: return HD_TYPE_OBJECT;
    }
    return 0;
}

static void constant(hd_schema *s, int32_t alt, const json_t *v, int types)
{
    if (!(type_of(v) & types)) return;
    size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_PRESERVE_ORDER;
    char *text = json_dumps(v, flags);
    if (!text) hd_builder_fail(s->b, HD_NOMEM, "schema: no memory for a constant");
    else hd_node_append(s->b, alt, hd_node_text(s->b, text));
    free(text);
}

/* enum and const leave nothing to the keywords beside them but the type. */
static int32_t enumeration(hd_schema *s, const json_t *j, const hd_where *w)
{
    const json_t *list = json_object_get(j, "enum"), *only = json_object_get(j, "const"), *v;
    int other, types = hd_schema_types(s, j, w);
    size_t i;
    bool all;
    int32_t alt = hd_node_new(s->b, HD_NODE_ALT, 0, 0);
    read_keywords(s, j, &other, &all, w);
    if (other)
        hd_schema_fail(s, w, HD_UNSUPPORTED,
                       "\"enum\" or \"const\" beside keywords other than \"type\" is not supported");
    if (list && !json_is_array(list)) hd_schema_fail(s, w, HD_FORMAT, "\"enum\" must be an array");
    bool in_list = !list;
    json_array_foreach(list, i, v)
    {
        in_list = in_list || json_equal(v, only);
        if (!only) constant(s, alt, v, types);
    }
    if (only && in_list) constant(s, alt, only, types);
    if (s->b->st == HD_OK && s->b->node[alt].last < 0) return hd_node_never(s->b);
    return alt;
}

/* ---- Objects ---- */

enum { MOST_PROPERTIES = 1000 };

static int32_t member(hd_schema *s, const char *name, const json_t *schema, const hd_where *w)
{
    int32_t seq = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
    json_t *key = json_string(name);
    char *text = key ? json_dumps(key, JSON_ENCODE_ANY) : NULL;
    if (text) hd_node_append(s->b, seq, hd_node_text(s->b, text));
    else hd_builder_fail(s->b, HD_NOMEM, "schema: no memory for a key");
    free(text);
    json_decref(key);
    hd_node_append(s->b, seq, hd_node_text(s->b, ":"));
    hd_node_append(s->b, seq, maybe_space(s));
    hd_node_append(s->b, seq, hd_schema_value(s, schema, w));
    return seq;
}

static bool is_required(const json_t *required, const char *name)
{
    size_t i;
    const json_t *v;
    json_array_foreach(required, i, v)
    {
        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0) return true;
    }
    return false;
}

static void add_member(hd_schema *s, int32_t members, int32_t node, bool optional)
{
    hd_node_append(s->b, members, node);
    if (s->b->st == HD_OK) s->b->node[s->b->node[members].last].optional = optional;
}

/* Members that are required but not described: they are as additionalProperties says. */
static void add_undescribed(hd_schema *s, int32_t members, const json_t *j, const json_t *other,
                            const hd_where *w)
{
    const json_t *props = json_object_get(j, "properties"), *v;
    json_t *required = json_object_get(j, "required"), *done = json_object();
    size_t i;
    json_array_foreach(required, i, v)
    {
        const char *name = json_string_value(v);
        if (!name) hd_schema_fail(s, w, HD_FORMAT, "\"required\" must be an array of strings");
        if (!name || json_object_get(props, name) || json_object_get(done, name)) continue;
        hd_where in = hd_where_key(w, "additionalProperties");
        add_member(s, members, member(s, name, other, &in), false);
        if (!done || json_object_set_new(done, name, json_true()) != 0)
            hd_builder_fail(s->b, HD_NOMEM, "schema: no memory for names");
        if (s->b->st != HD_OK) break;
    }
    json_decref(done);
}

/* The rule of members that `properties` does not name. */
static int32_t other_members(hd_schema *s, const json_t *j, const json_t *other, const hd_where *w)
{
    json_t *props = json_object_get(j, "properties"), *required = json_object_get(j, "required"), *v;
    const char **name = NULL, *key;
    size_t n = 0, i, room = json_object_size(props) + json_array_size(required);
    s->b->st = s->b->st != HD_OK ? s->b->st : hd_alloc_n(&name, room, sizeof *name, s->b->err);
    if (s->b->st != HD_OK) return -1;
    json_object_foreach(props, key, v) name[n++] = key;
    json_array_foreach(required, i, v) if (json_is_string(v)) name[n++] = json_string_value(v);
    int32_t other_key = hd_schema_other_key(s, name, n);
    free(name);
    hd_where in = hd_where_key(w, "additionalProperties");
    return any_members(s, other_key, hd_rule_anonymous(s->b, hd_schema_value(s, other, &in)));
}

static int32_t object(hd_schema *s, const json_t *j, const hd_where *w)
{
    json_t *props = json_object_get(j, "properties"), *required = json_object_get(j, "required"), *v;
    const json_t *other = json_object_get(j, "additionalProperties");
    const char *name;
    hd_where in = hd_where_key(w, "properties");
    if (props && !json_is_object(props)) hd_schema_fail(s, w, HD_FORMAT, "\"properties\" must be an object");
    if (required && !json_is_array(required))
        hd_schema_fail(s, w, HD_FORMAT, "\"required\" must be an array");
    if (json_object_size(props) + json_array_size(required) > MOST_PROPERTIES)
        hd_schema_fail(s, w, HD_LIMIT, "more than %d properties", MOST_PROPERTIES);
    if (!props && !json_array_size(required) && (!other || json_is_true(other))) return any_object(s);
    bool open = other ? !json_is_false(other) : !props;
    if (!other) other = json_true();
    int32_t members = hd_node_new(s->b, HD_NODE_MEMBERS, comma_rule(s), -1);
    json_object_foreach(props, name, v)
    {
        hd_where at = hd_where_key(&in, name);
        add_member(s, members, member(s, name, v, &at), !is_required(required, name));
        if (s->b->st != HD_OK) return 0;
    }
    add_undescribed(s, members, j, other, w);
    if (open) {
        int32_t extra = other_members(s, j, other, w);
        if (s->b->st == HD_OK) s->b->node[members].b = extra;
    }
    return bracketed(s, "{", members, "}");
}

/* ---- Arrays ---- */

/* Elements 0, 1, ...: those of prefixItems, then items without end or up to maxItems; at least minItems. */
static int32_t array(hd_schema *s, const json_t *j, const hd_where *w)
{
    const json_t *prefix = json_object_get(j, "prefixItems"), *items = json_object_get(j, "items");
    int32_t min = 0, max = -1, n_prefix = (int32_t)json_array_size(prefix), item = -1;
    hd_where at_prefix = hd_where_key(w, "prefixItems"), at_items = hd_where_key(w, "items");
    hd_schema_count(s, j, "minItems", &min, w);
    hd_schema_count(s, j, "maxItems", &max, w);
    if (min > HD_GRAMMAR_REPEAT)
        hd_schema_fail(s, w, HD_LIMIT, "\"minItems\" is above %d", HD_GRAMMAR_REPEAT);
    if (max > HD_GRAMMAR_REPEAT) max = HD_GRAMMAR_REPEAT;
    if (prefix && !json_is_array(prefix)) hd_schema_fail(s, w, HD_FORMAT, "\"prefixItems\" must be an array");
    if (json_is_array(items))
        hd_schema_fail(s, w, HD_UNSUPPORTED, "\"items\" as an array: use \"prefixItems\"");
    if (json_is_false(items) && (max < 0 || max > n_prefix)) max = n_prefix;
    if (max >= 0 && max < min) return hd_node_never(s->b);
    if (s->b->st != HD_OK) return 0;
    if (max < 0 || max > n_prefix)
        item = items ? hd_rule_anonymous(s->b, hd_schema_value(s, items, &at_items)) : any_rule(s);
    if (max < 0 && min == 0 && n_prefix == 0) return list_of(s, item);

    int32_t n = max >= 0 ? max : min > n_prefix ? min : n_prefix > 0 ? n_prefix : 1, comma = comma_rule(s);
    int32_t chain = hd_node_new(s->b, HD_NODE_CHAIN, min, 0);
    for (int32_t i = 0; i < n && s->b->st == HD_OK; i++) {
        int32_t one = hd_node_append(s->b, chain, hd_node_new(s->b, HD_NODE_SEQ, 0, 0));
        hd_where at = hd_where_index(&at_prefix, (size_t)i);
        if (i > 0) hd_node_append(s->b, one, hd_node_call(s->b, comma));
        hd_node_append(s->b, one,
                       i < n_prefix ? hd_schema_value(s, json_array_get(prefix, (size_t)i), &at)
                                    : hd_node_call(s->b, item));
    }
    if (max < 0) {
        int32_t more = hd_node_new(s->b, HD_NODE_SEQ, 0, 0);
        hd_node_append(s->b, more, hd_node_call(s->b, comma));
        hd_node_append(s->b, more, hd_node_call(s->b, item));
        hd_node_append(s->b, chain, hd_node_repeat(s->b, more, 0, -1));
    }
    return bracketed(s, "[", chain, "]");
}

/* ---- Values ---- */

/* Keywords of one type each; j has no references and no alternatives. */
static int32_t plain_value(hd_schema *s, const json_t *j, const hd_where *w)
{
    int types, spoken;
    bool all;
    if (!read_keywords(s, j, &spoken, &all, w)) return 0;
    if (json_object_get(j, "enum") || json_object_get(j, "const")) return enumeration(s, j, w);
    types = hd_schema_types(s, j, w);
    if (!json_object_get(j, "type")) {
        if (!spoken) return hd_node_call(s->b, any_rule(s));
        types = spoken;
    }
    if (types == 0) return hd_node_never(s->b);
    int32_t alt = hd_node_new(s->b, HD_NODE_ALT, 0, 0);
    if (types & HD_TYPE_NULL) hd_node_append(s->b, alt, hd_node_text(s->b, "null"));
    if (types & HD_TYPE_BOOLEAN) hd_node_append(s->b, alt, hd_node_text(s->b, "true"));
    if (types & HD_TYPE_BOOLEAN) hd_node_append(s->b, alt, hd_node_text(s->b, "false"));
    if (types & (HD_TYPE_INTEGER | HD_TYPE_NUMBER))
        hd_node_append(s->b, alt, hd_schema_number(s, j, !(types & HD_TYPE_NUMBER), w));
    if (types & HD_TYPE_STRING) hd_node_append(s->b, alt, hd_schema_string(s, j, w));
    if (types & HD_TYPE_ARRAY) hd_node_append(s->b, alt, array(s, j, w));
    if (types & HD_TYPE_OBJECT) hd_node_append(s->b, alt, object(s, j, w));
    return alt;
}

/* oneOf is anyOf where no two branches can both hold. */
static bool all_apart(hd_schema *s, const json_t *branch, const hd_where *w)
{
    size_t n = json_array_size(branch);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++) {
            hd_where at = hd_where_index(w, i);
            if (hd_schema_apart(s, json_array_get(branch, k), json_array_get(branch, i), &at)) continue;
            hd_schema_fail(s, &at, HD_UNSUPPORTED,
                           "\"oneOf\": a value might fit this branch and branch %zu, too: use anyOf, or tell "
                           "them apart by type or by a "
                           "required constant",
                           k);
            return false;
        }
    return true;
}

static int32_t alternatives(hd_schema *s, json_t *j, const char *keyword, const hd_where *w)
{
    json_t *branch = json_object_get(j, keyword), *v, *base = hd_schema_copy(s, j);
    hd_where in = hd_where_key(w, keyword);
    int spoken;
    size_t i;
    bool all;
    int32_t alt = hd_node_new(s->b, HD_NODE_ALT, 0, 0);
    if (!json_is_array(branch) || json_array_size(branch) == 0)
        hd_schema_fail(s, w, HD_FORMAT, "\"%s\" must be an array of schemas", keyword);
    json_object_del(base, keyword);
    if (s->b->st == HD_OK && read_keywords(s, base, &spoken, &all, w) &&
        (keyword[0] == 'a' || all_apart(s, branch, &in)))
        json_array_foreach(branch, i, v)
        {
            hd_where at = hd_where_index(&in, i);
            if (s->b->st != HD_OK) break;
            json_t *both = all || spoken ? hd_schema_both(s, base, v, &at) : json_incref(v);
            if (both) hd_node_append(s->b, alt, hd_schema_value(s, both, &at));
            json_decref(both);
        }
    json_decref(base);
    return alt;
}

int32_t hd_schema_value(hd_schema *s, const json_t *j, const hd_where *w)
{
    int spoken;
    bool all;
    if (s->b->st != HD_OK) return 0;
    if (w->depth > HD_GRAMMAR_DEPTH * 2 || --s->steps < 0) {
        hd_schema_fail(s, w, HD_LIMIT, "schemas in schemas, too deep or too many");
        return 0;
    }
    if (json_is_true(j)) return hd_node_call(s->b, any_rule(s));
    if (json_is_false(j)) return hd_node_never(s->b);
    if (!json_is_object(j)) {
        hd_schema_fail(s, w, HD_FORMAT, "a schema must be an object, true or false");
        return 0;
    }
    if (!read_keywords(s, j, &spoken, &all, w)) return 0;
    const json_t *ref = json_object_get(j, "$ref");
    int n_all = 0;
    for (size_t i = 0; i < 8; i++)
        n_all += json_object_get(j, keywords[i].name) != NULL; // those of every type
    if (ref && !spoken && n_all == 1) return reference(s, ref, w);
    json_t *flat = hd_schema_flat(s, (json_t *)j, w);
    int32_t node = 0;
    if (!flat) return 0;
    if (!json_is_object(flat)) node = hd_schema_value(s, flat, w);
    else if (json_object_get(flat, "anyOf")) node = alternatives(s, flat, "anyOf", w);
    else if (json_object_get(flat, "oneOf")) node = alternatives(s, flat, "oneOf", w);
    else node = plain_value(s, flat, w);
    json_decref(flat);
    return node;
}

hd_status hd_schema_read(hd_builder *b, const json_t *schema, int32_t *root)
{
    hd_schema s = {.b = b, .root = schema, .steps = HD_SCHEMA_VALUES};
    const hd_where top = {0};
    bool fresh = hd_schema_rule(&s, "root", root);
    int32_t body = schema ? hd_schema_value(&s, schema, &top) : any_object(&s);
    if (fresh) hd_schema_body(&s, *root, body);
    for (int i = 0; i < s.n_ref && b->st == HD_OK; i++) {
        const hd_where at = hd_where_key(&top, "$ref");
        hd_schema_body(&s, s.ref_rule[i], hd_schema_value(&s, s.ref[i], &at));
    }
    free(s.ref);
    free(s.ref_rule);
    return b->st;
}
