/* Two schemas at once, and whether two can both hold.
 *
 * A schema that joins others by allOf or by $ref with keywords beside it is rewritten as one schema of the
 * joined keywords.  What its members are joined of is left as an allOf of their own, to be rewritten when
 * they are reached.  Work is counted in hd_schema.steps, and depth in hd_where, so schemas that join
 * themselves come to an end. */
#include <string.h>

#include "infer/schema_impl.h"

static bool charge(hd_schema *s, const hd_where *w, size_t n)
{
    if (s->b->st == HD_OK && (w->depth > HD_GRAMMAR_DEPTH * 2 || n > (size_t)s->steps))
        hd_schema_fail(s, w, HD_LIMIT, "schemas joined with schemas, too deep or too many");
    if (s->b->st == HD_OK) s->steps -= (int)n;
    return s->b->st == HD_OK;
}

/* A copy of an object whose values are shared.  json_copy may leave out members when memory ends. */
json_t *hd_schema_copy(hd_schema *s, json_t *j)
{
    json_t *copy = json_copy(j);
    if (!copy || json_object_size(copy) != json_object_size(j))
        hd_builder_fail(s->b, HD_NOMEM, "schema: no memory to join schemas");
    return copy;
}

/* Put a new reference into an object or array that may be missing. */
static void put(hd_schema *s, json_t *to, const char *key, json_t *v)
{
    int failed = key ? json_object_set_new(to, key, v) : json_array_append_new(to, v);
    if (failed) hd_builder_fail(s->b, HD_NOMEM, "schema: no memory to join schemas");
}

/* ---- Both ---- */

static json_t *type_list(hd_schema *s, int types)
{
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    json_t *list = json_array();
    if (types & HD_TYPE_NUMBER) types &= ~HD_TYPE_INTEGER;
    for (int i = 0; i < 7; i++)
        if (types >> i & 1) put(s, list, NULL, json_string(names[i]));
    return list;
}

static bool equal(const json_t *x, const json_t *y)
{
    if (json_is_number(x) && json_is_number(y) && json_typeof(x) != json_typeof(y))
        return json_number_value(x) == json_number_value(y);
    return json_equal(x, y);
}

static json_t *intersection(hd_schema *s, const json_t *x, const json_t *y)
{
    json_t *out = json_array(), *v;
    size_t i;
    json_array_foreach(x, i, v)
    {
        bool both = false;
        for (size_t k = 0; k < json_array_size(y) && !both; k++) both = equal(v, json_array_get(y, k));
        if (both) put(s, out, NULL, json_incref(v));
    }
    return out;
}

static json_t *union_of(hd_schema *s, const json_t *x, const json_t *y)
{
    json_t *out = json_array(), *v;
    size_t i;
    json_array_foreach(x, i, v) put(s, out, NULL, json_incref(v));
    json_array_foreach(y, i, v) put(s, out, NULL, json_incref(v));
    return out;
}

static json_t *join(hd_schema *s, json_t *x, json_t *y)
{
    if (!x || json_is_true(x)) return json_incref(y);
    if (!y || json_is_true(y)) return json_incref(x);
    if (json_equal(x, y)) return json_incref(x);
    json_t *list = json_array(), *out = json_object();
    put(s, list, NULL, json_incref(x));
    put(s, list, NULL, json_incref(y));
    put(s, out, "allOf", list);
    return out;
}

/* A member keeps to what each schema says of it: its own property, or else additionalProperties. */
static void join_members(hd_schema *s, json_t *out, const json_t *x, const json_t *y)
{
    json_t *px = json_object_get(x, "properties"), *py = json_object_get(y, "properties"), *v;
    json_t *ax = json_object_get(x, "additionalProperties"), *ay = json_object_get(y, "additionalProperties");
    json_t *props = json_object(), *yes = json_true();
    const char *name;
    json_object_foreach(px, name, v)
    {
        json_t *other = json_object_get(py, name);
        put(s, props, name, join(s, v, other ? other : ay ? ay : yes));
    }
    json_object_foreach(py, name, v)
    {
        if (!json_object_get(px, name)) put(s, props, name, join(s, ax ? ax : yes, v));
    }
    if (px || py) put(s, out, "properties", json_incref(props));
    if (ax || ay) put(s, out, "additionalProperties", join(s, ax ? ax : yes, ay ? ay : yes));
    json_decref(props);
}

static bool one_of(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(key, *list) == 0) return true;
    return false;
}

/* A keyword that both have, with different values. */
static void join_keyword(hd_schema *s, json_t *out, const char *key, json_t *x, json_t *y, const hd_where *w)
{
    static const char *const lower[] = {"minimum", "exclusiveMinimum", "minLength", "minItems", NULL};
    static const char *const upper[] = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", NULL};
    bool low = one_of(key, lower), numbers = json_is_number(x) && json_is_number(y);
    if ((low || one_of(key, upper)) && numbers) {
        bool take_y =
            low ? json_number_value(y) > json_number_value(x) : json_number_value(y) < json_number_value(x);
        put(s, out, key, json_incref(take_y ? y : x));
    } else if (strcmp(key, "required") == 0) put(s, out, key, union_of(s, x, y));
    else if (strcmp(key, "enum") == 0) put(s, out, key, intersection(s, x, y));
    else if (strcmp(key, "items") == 0) put(s, out, key, join(s, x, y));
    else if (strcmp(key, "const") == 0) {
        if (!equal(x, y)) put(s, out, "enum", json_array()); // no value is both
    } else
        hd_schema_fail(s, w, HD_UNSUPPORTED, "two different \"%.60s\" for one value cannot be joined", key);
}

static bool is_note(const char *key)
{
    static const char *const notes[] = {"$defs",    "definitions", "title",    "description", "default",
                                        "examples", "deprecated",  "readOnly", "writeOnly",   "$schema",
                                        "$id",      "$comment",    NULL};
    return one_of(key, notes);
}

json_t *hd_schema_both(hd_schema *s, json_t *x, json_t *y, const hd_where *w)
{
    json_t *fx = hd_schema_flat(s, x, w), *fy = fx ? hd_schema_flat(s, y, w) : NULL, *out = NULL, *v;
    const char *key;
    if (!fx || !fy) goto end;
    if (!json_is_object(fx) || !json_is_object(fy)) {
        out = json_is_false(fx) || json_is_false(fy) ? json_false() : json_incref(json_is_true(fx) ? fy : fx);
        goto end;
    }
    if (!charge(s, w,
                json_object_size(fx) + json_object_size(fy) +
                    json_object_size(json_object_get(fx, "properties")) +
                    json_object_size(json_object_get(fy, "properties")) +
                    json_array_size(json_object_get(fx, "required")) +
                    json_array_size(json_object_get(fx, "enum")) *
                        (1 + json_array_size(json_object_get(fy, "enum")))))
        goto end;
    if ((json_object_get(fx, "prefixItems") && json_object_get(fy, "items")) ||
        (json_object_get(fy, "prefixItems") && json_object_get(fx, "items")))
        hd_schema_fail(s, w, HD_UNSUPPORTED, "\"prefixItems\" and \"items\" of two schemas cannot be joined");
    out = hd_schema_copy(s, fx);
    json_object_foreach(fy, key, v)
    {
        json_t *mine = json_object_get(fx, key);
        if (s->b->st != HD_OK || is_note(key) || strcmp(key, "properties") == 0 ||
            strcmp(key, "additionalProperties") == 0 || strcmp(key, "type") == 0 ||
            strcmp(key, "nullable") == 0)
            continue;
        if (!mine) put(s, out, key, json_incref(v));
        else if (!json_equal(mine, v)) join_keyword(s, out, key, mine, v, w);
    }
    if (json_object_get(fx, "type") || json_object_get(fy, "type")) {
        put(s, out, "type", type_list(s, hd_schema_types(s, fx, w) & hd_schema_types(s, fy, w)));
        json_object_del(out, "nullable");
    }
    join_members(s, out, fx, fy);
end:
    json_decref(fx);
    json_decref(fy);
    if (s->b->st == HD_OK) return out;
    json_decref(out);
    return NULL;
}

json_t *hd_schema_flat(hd_schema *s, json_t *j, const hd_where *w)
{
    json_t *ref = json_object_get(j, "$ref"), *all = json_object_get(j, "allOf"), *out, *v;
    size_t i;
    if (!charge(s, w, 1)) return NULL;
    if (!json_is_object(j) && !json_is_boolean(j)) {
        hd_schema_fail(s, w, HD_FORMAT, "a schema must be an object, true or false");
        return NULL;
    }
    if (!ref && !all) return json_incref(j);
    if (!charge(s, w, json_object_size(j))) return NULL;
    out = hd_schema_copy(s, j);
    json_object_del(out, "$ref");
    json_object_del(out, "allOf");
    if (ref) {
        hd_where at = hd_where_key(w, "$ref");
        const json_t *target = hd_schema_target(s, ref, w);
        json_t *both = target ? hd_schema_both(s, out, (json_t *)target, &at) : NULL;
        json_decref(out);
        out = both;
    }
    hd_where in = hd_where_key(w, "allOf");
    if (all && (!json_is_array(all) || json_array_size(all) == 0))
        hd_schema_fail(s, w, HD_FORMAT, "\"allOf\" must be an array of schemas");
    json_array_foreach(all, i, v)
    {
        hd_where at = hd_where_index(&in, i);
        json_t *both = s->b->st == HD_OK ? hd_schema_both(s, out, v, &at) : NULL;
        json_decref(out);
        out = both;
    }
    if (s->b->st == HD_OK) return out;
    json_decref(out);
    return NULL;
}

/* ---- Apart ---- */

/* All values that enum and const leave: an array, new; NULL when they leave all. */
static json_t *values(hd_schema *s, const json_t *j)
{
    json_t *only = json_object_get(j, "const"), *list = json_object_get(j, "enum");
    if (!only) return json_incref(list);
    json_t *out = json_array();
    put(s, out, NULL, json_incref(only));
    return out;
}

static bool no_value_in_common(hd_schema *s, const json_t *x, const json_t *y, const hd_where *w)
{
    json_t *vx = values(s, x), *vy = values(s, y), *both = NULL;
    bool apart = false;
    if (vx && vy && charge(s, w, json_array_size(vx) * json_array_size(vy) / 64)) {
        both = intersection(s, vx, vy);
        apart = json_array_size(both) == 0;
    }
    json_decref(vx);
    json_decref(vy);
    json_decref(both);
    return apart;
}

static int types_of(hd_schema *s, const json_t *j, const hd_where *w)
{
    json_t *list = values(s, j), *v;
    int types = 0;
    size_t i;
    json_array_foreach(list, i, v)
    {
        static const int of[] = {[JSON_OBJECT] = HD_TYPE_OBJECT,
                                 [JSON_ARRAY] = HD_TYPE_ARRAY,
                                 [JSON_STRING] = HD_TYPE_STRING,
                                 [JSON_INTEGER] = HD_TYPE_INTEGER,
                                 [JSON_REAL] = HD_TYPE_INTEGER | HD_TYPE_NUMBER,
                                 [JSON_TRUE] = HD_TYPE_BOOLEAN,
                                 [JSON_FALSE] = HD_TYPE_BOOLEAN,
                                 [JSON_NULL] = HD_TYPE_NULL};
        types |= of[json_typeof(v)];
    }
    types = list ? types & hd_schema_types(s, j, w) : hd_schema_types(s, j, w);
    json_decref(list);
    return types;
}

static bool requires(const json_t *j, const char *name)
{
    const json_t *required = json_object_get(j, "required"), *v;
    size_t i;
    json_array_foreach(required, i, v)
    {
        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0) return true;
    }
    return false;
}

/* x needs a member that y has no room for, or one whose values are apart from y's. */
static bool members_apart(hd_schema *s, const json_t *x, const json_t *y, const hd_where *w)
{
    json_t *required = json_object_get(x, "required"), *px = json_object_get(x, "properties");
    json_t *py = json_object_get(y, "properties"), *v;
    bool closed = json_is_false(json_object_get(y, "additionalProperties"));
    size_t i;
    if (!charge(s, w, json_array_size(required))) return false;
    json_array_foreach(required, i, v)
    {
        const char *name = json_string_value(v);
        json_t *a = name ? json_object_get(px, name) : NULL, *b = name ? json_object_get(py, name) : NULL;
        if (name && !b && closed) return true;
        hd_where at = name ? hd_where_key(w, name) : *w;
        if (a && b && (requires(x, name) || requires(y, name)) && hd_schema_apart(s, a, b, &at)) return true;
    }
    return false;
}

static bool above(const json_t *x, const json_t *y, const char *low, const char *high)
{
    const json_t *from = json_object_get(x, low), *to = json_object_get(y, high);
    return json_is_number(from) && json_is_number(to) && json_number_value(from) > json_number_value(to);
}

static bool branches_apart(hd_schema *s, json_t *branches, json_t *y, const hd_where *w)
{
    size_t i;
    json_t *v;
    json_array_foreach(branches, i, v)
    {
        if (!hd_schema_apart(s, v, y, w)) return false;
    }
    return json_array_size(branches) > 0;
}

bool hd_schema_apart(hd_schema *s, json_t *x, json_t *y, const hd_where *w)
{
    hd_where deeper = hd_where_key(w, "oneOf");
    json_t *fx = hd_schema_flat(s, x, &deeper), *fy = hd_schema_flat(s, y, &deeper);
    bool apart = false;
    if (!fx || !fy || !json_is_object(fx) || !json_is_object(fy))
        apart = json_is_false(fx) || json_is_false(fy);
    else {
        int common = types_of(s, fx, w) & types_of(s, fy, w);
        json_t *branches[] = {json_object_get(fx, "anyOf"), json_object_get(fx, "oneOf"),
                              json_object_get(fy, "anyOf"), json_object_get(fy, "oneOf")};
        apart = common == 0 || no_value_in_common(s, fx, fy, w);
        if (!apart && common == HD_TYPE_OBJECT)
            apart = members_apart(s, fx, fy, &deeper) || members_apart(s, fy, fx, &deeper);
        if (!apart && common == HD_TYPE_STRING)
            apart = above(fx, fy, "minLength", "maxLength") || above(fy, fx, "minLength", "maxLength");
        if (!apart && common == HD_TYPE_ARRAY)
            apart = above(fx, fy, "minItems", "maxItems") || above(fy, fx, "minItems", "maxItems");
        if (!apart && !(common & ~(HD_TYPE_INTEGER | HD_TYPE_NUMBER)))
            apart = above(fx, fy, "minimum", "maximum") || above(fy, fx, "minimum", "maximum");
        for (int i = 0; i < 4 && !apart && s->b->st == HD_OK; i++)
            apart = branches_apart(s, branches[i], i < 2 ? fy : fx, &deeper);
    }
    json_decref(fx);
    json_decref(fy);
    return apart && s->b->st == HD_OK;
}
