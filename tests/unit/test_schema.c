/* JSON schemas: what their grammars accept and refuse, what is not supported and where, hostile schemas, and
 * random walks whose texts must be JSON.
 *
 * test_schema --walk MODEL SEED COUNT: reads schemas (or grammars of one rule), one a line, and prints COUNT
 * walks of each with the tokenizer of a
 * model: {"line", "text", "ended", "tokens", "mask_us", "worst_us", "open_us"}, or {"line",
 * "error", "status"}. */
#include <jansson.h>

#include "grammar_walk.h"
#include "infer/grammar_impl.h"
#include "test.h"

static hd_err err;
static hd_tokenizer *tok;
static int32_t stop;

/* A JSON text with ' for ". */
static char *quoted(const char *s)
{
    char *q = strdup(s);
    for (char *p = q; *p; p++)
        if (*p == '\'') *p = '"';
    return q;
}

static hd_status open_schema(hd_grammar **g, const char *schema)
{
    char *q = quoted(schema);
    *g = NULL;
    json_t *one = q[0] == '{' ? NULL : json_loads(q, JSON_DECODE_ANY, NULL);
    hd_status st = one ? hd_grammar_open_schema(g, one, &err) : hd_grammar_open_schema_text(g, q, strlen(q), &err);
    json_decref(one);
    free(q);
    return st;
}

static bool accepts(hd_grammar *g, const char *text)
{
    hd_grammar_state *s = NULL;
    hd_err e;
    char *q = quoted(text);
    CHECK_OK(hd_grammar_state_open(&s, g, tok, &err));
    size_t i = 0;
    while (q[i] && hd_grammar_accept(s, (uint8_t)q[i], &e) == HD_OK) i++;
    bool all = !q[i] && hd_grammar_may_end(s);
    hd_grammar_state_close(s);
    free(q);
    return all;
}

typedef struct {
    const char *schema, *yes[8], *no[8];
} language;

static const language languages[] = {
    {"true", {"null", "[1, {'a': 'b'}]", "-1.5e+10", "'x'", "{ }", "[ ]"}, {"", "nul", "[1,]", "01", "+1", "{'a':1,}", "[1,  2]"}},
    {"{}", {"1", "[]"}, {"x"}},
    {"{'type': 'object'}", {"{}", "{'a':1}", "{ 'a': [1, 2] }"}, {"[]", "{'a'}", "1"}},
    {"{'type': 'boolean'}", {"true", "false"}, {"null", "1"}},
    {"{'type': ['string', 'null']}", {"'a'", "null", "''"}, {"1", "'"}},
    {"{'type': 'string', 'nullable': true}", {"'a'", "null"}, {"1"}},
    {"{'type': 'string'}", {"'\\n\\u00e9\\ud83d\\ude00'", "'\xc3\xa9'", "'\\u0001'"}, {"'\\ud83d'", "'\\u0000'", "'\\x'", "'\n'", "'\xff'"}},
    {"{'type': 'string', 'minLength': 2, 'maxLength': 3}", {"'ab'", "'\xc3\xa9\\u00e9'", "'abc'"}, {"'a'", "'abcd'", "''"}},
    {"{'type': 'integer'}", {"0", "-5", "123456789012345678"}, {"1.5", "01", "1e3", "1234567890123456789"}},
    {"{'type': 'integer', 'minimum': -12, 'maximum': 105}", {"-12", "-1", "0", "9", "99", "105", "100"}, {"-13", "106", "-0", "200", "05"}},
    {"{'type': 'integer', 'exclusiveMinimum': 0, 'exclusiveMaximum': 10}", {"1", "9"}, {"0", "10", "-1"}},
    {"{'type': 'integer', 'minimum': 0.5, 'maximum': 2.5}", {"1", "2"}, {"0", "3"}},
    {"{'type': 'integer', 'minimum': 99999}", {"99999", "100000", "999999999999999999"}, {"99998", "1"}},
    {"{'type': 'number', 'minimum': 0, 'maximum': 1}", {"0", "1", "0.5", "1.0", "0.000001", "1.000000"}, {"1.1", "-0.1", "2", "1.000001"}},
    {"{'type': 'number', 'exclusiveMinimum': -0.25, 'maximum': 0.5}", {"-0.24", "0.50", "0"}, {"-0.25", "0.51", "-1", "1"}},
    {"{'enum': ['a', 1, null, [1,2], {'x': 'y'}, 'ab']}", {"'a'", "'ab'", "1", "null", "[1,2]", "{'x':'y'}"}, {"'b'", "2", "'abc'"}},
    {"{'const': 'yes', 'type': 'string'}", {"'yes'"}, {"'no'"}},
    {"{'type': 'string', 'enum': ['a', 3]}", {"'a'"}, {"3"}},
    {"{'type': 'object', 'properties': {'a': {'type': 'integer'}, 'b': {'type': 'string'}, 'c': true}, 'required': ['b']}",
     {"{'b':''}", "{'a': 1, 'b': 'x'}", "{'a':1,'b':'x','c':null}", "{'b':'','c':2}"},
     {"{}", "{'a':1}", "{'b':'','a':1}", "{'b':'',}", "{'b':'','d':1}", "{'a':1 'b':''}"}},
    {"{'properties': {'ab': {'type': 'integer'}}, 'additionalProperties': {'type': 'boolean'}}",
     {"{}", "{'ab':1}", "{'ab':1,'a':true}", "{'x':true}", "{'abc':false,'y':true}", "{'':true}", "{'\xc3\xa9':true}"},
     {"{'ab':true}", "{'x':1}", "{'ab':1,'ab':true}", "{'\\u0061b':true}"}},
    {"{'type': 'object', 'properties': {'\xc3\xa9t\xc3\xa9': {'type': 'integer'}}, 'additionalProperties': true, 'required': ['z']}",
     {"{'z':1}", "{'\xc3\xa9t\xc3\xa9':1,'z':[]}", "{'z':1,'\xc3\xa9t':'x'}", "{'z':0,'\xc3\xa8':1}"}, {"{}", "{'z':1,'\xc3\xa9t\xc3\xa9':'x'}", "{'z':1,'z':2}"}},
    {"{'type': 'object', 'required': ['a', 'b'], 'additionalProperties': {'type': 'integer'}}", {"{'a':1,'b':2}", "{'a':1,'b':2,'c':3}"}, {"{'a':1}", "{'a':1,'b':'x'}"}},
    {"{'type': 'object', 'properties': {'a': {'type': 'integer'}}, 'additionalProperties': false, 'required': ['a']}", {"{'a':1}"}, {"{}", "{'a':1,'b':1}"}},
    {"{'type': 'array', 'items': {'type': 'integer'}}", {"[]", "[1]", "[1, 2,3]"}, {"[1,]", "['a']", "[,1]"}},
    {"{'type': 'array', 'items': {'type': 'integer'}, 'minItems': 2, 'maxItems': 3}", {"[1,2]", "[1,2,3]"}, {"[]", "[1]", "[1,2,3,4]"}},
    {"{'type': 'array', 'minItems': 1}", {"[1]", "[[],{}]"}, {"[]"}},
    {"{'type': 'array', 'maxItems': 0}", {"[]", "[ ]"}, {"[1]"}},
    {"{'prefixItems': [{'type': 'integer'}, {'type': 'string'}], 'items': false, 'minItems': 1}", {"[1]", "[1,'a']"}, {"[]", "['a']", "[1,'a',2]"}},
    {"{'prefixItems': [{'type': 'integer'}], 'items': {'type': 'null'}}", {"[]", "[1]", "[1,null,null]"}, {"[null]", "[1,2]"}},
    {"{'anyOf': [{'type': 'integer'}, {'type': 'string', 'maxLength': 1}]}", {"1", "'a'"}, {"'ab'", "true"}},
    {"{'type': 'object', 'properties': {'k': {'type': 'string'}}, 'required': ['k'], 'anyOf': [{'properties': {'v': {'type': 'integer'}}, 'required': ['v']}, {'properties': {'w': {'type': 'null'}}, 'required': ['w']}]}",
     {"{'k':'','v':1}", "{'k':'','w':null}"}, {"{'k':''}", "{'v':1}"}},
    {"{'oneOf': [{'type': 'integer'}, {'type': 'string'}]}", {"1", "'a'"}, {"null"}},
    {"{'oneOf': [{'type': 'object', 'properties': {'t': {'const': 'a'}, 'x': {'type': 'integer'}}, 'required': ['t']}, {'type': 'object', 'properties': {'t': {'const': 'b'}}, 'required': ['t']}]}",
     {"{'t':'a'}", "{'t':'b'}", "{'t':'a','x':1}"}, {"{'t':'c'}", "{'t':'b','x':1}"}},
    {"{'allOf': [{'type': 'object', 'properties': {'a': {'type': 'integer', 'minimum': 3}}}, {'properties': {'a': {'maximum': 5}, 'b': {'type': 'null'}}, 'required': ['a']}]}",
     {"{'a':4}", "{'a':3,'b':null}"}, {"{'a':2}", "{'a':6}", "{}"}},
    {"{'$ref': '#/$defs/n', '$defs': {'n': {'type': 'object', 'properties': {'v': {'type': 'integer'}, 'next': {'$ref': '#/$defs/n'}}, 'required': ['v']}}}",
     {"{'v':1}", "{'v':1,'next':{'v':2,'next':{'v':3}}}"}, {"{'next':{'v':1}}", "{'v':1,'next':1}"}},
    {"{'type': 'array', 'items': {'$ref': '#'}}", {"[]", "[[],[[]]]"}, {"[1]"}},
    {"{'$ref': '#/$defs/a~1b', 'minLength': 2, 'description': 'd', '$defs': {'a/b': {'type': 'string', 'maxLength': 2}}}", {"'ab'"}, {"'a'", "'abc'"}},
    {"{'type': 'string', 'pattern': '^[a-z]{2,3}$'}", {"'ab'", "'abc'"}, {"'a'", "'abcd'", "'A'"}},
    {"{'type': 'string', 'pattern': '^[a-z]+$', 'maxLength': 2}", {"'a'", "'ab'"}, {"'abc'", "''"}},
    {"{'type': 'string', 'pattern': '^#[0-9]*$', 'minLength': 2, 'maxLength': 3}", {"'#1'", "'#12'"}, {"'#'", "'#123'"}},
    {"{'type': 'string', 'pattern': 'b+'}", {"'b'", "'abbc'", "'\\nb\xc3\xa9'"}, {"'a'", "''"}},
    {"{'type': 'string', 'pattern': '^(?:a|b\\\\.|\\\\d{2})?x$|^y'}", {"'x'", "'ax'", "'b.x'", "'12x'", "'yes'"}, {"'bx'", "'1x'", "'xx'"}},
    {"{'type': 'string', 'pattern': '^[^a-z\\\\s]\\\\w\\\\W.$'}", {"'AB !'", "'_9-\xc3\xa9'", "'\\\\a \\\\'"}, {"'aB !'", "'ABCD'"}},
    {"{'type': 'string', 'format': 'date'}", {"'2024-02-29'", "'2023-12-31'", "'2000-02-29'"}, {"'2023-02-29'", "'1900-02-29'", "'2024-13-01'", "'2024-04-31'"}},
    {"{'type': 'string', 'format': 'date-time'}", {"'2024-02-29T23:59:59Z'", "'2024-01-01T00:00:00.123+02:00'"}, {"'2024-01-01'", "'2024-01-01T24:00:00Z'"}},
    {"{'type': 'string', 'format': 'uuid'}", {"'123e4567-e89b-12d3-a456-426614174000'"}, {"'123e4567'"}},
    {"{'type': 'string', 'format': 'ipv4'}", {"'127.0.0.1'", "'255.255.255.255'"}, {"'256.1.1.1'", "'1.1.1'", "'01.1.1.1'"}},
    {"{'type': 'string', 'format': 'email'}", {"'a.b@c-d.org'"}, {"'a@b'", "'@c.org'", "'a@-c.org'"}},
    {"{'type': 'object', 'properties': {'a': false, 'b': {'type': 'null'}}}", {"{}", "{'b':null}"}, {"{'a':1}"}},
    {"{'title': 't', 'description': 'd', 'default': 1, 'examples': [], '$comment': 'c', '$id': 'x', '$schema': 'y', 'type': 'null'}", {"null"}, {"1"}},
    {"{'type': 'object', 'properties': {'a\\\\b': {'type': 'null'}}, 'additionalProperties': false}", {"{'a\\\\b':null}"}, {"{'a':null}"}},
};

static void test_languages(void)
{
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++) {
        const language *l = &languages[i];
        hd_grammar *g = NULL;
        hd_status st = open_schema(&g, l->schema);
        CHECK(st == HD_OK, "%s: %s", l->schema, err.msg);
        if (!g) continue;
        for (int k = 0; k < 8 && l->yes[k]; k++) CHECK(accepts(g, l->yes[k]), "%s: %s", l->schema, l->yes[k]);
        for (int k = 0; k < 8 && l->no[k]; k++) CHECK(!accepts(g, l->no[k]), "%s: %s", l->schema, l->no[k]);
        hd_grammar_close(g);
    }
    hd_grammar *g = NULL;
    CHECK_OK(hd_grammar_open_schema(&g, NULL, &err));
    CHECK(accepts(g, "{'a': [1, {'b': null}]}") && accepts(g, "{}") && !accepts(g, "[]") && !accepts(g, ""), "any object");
    hd_grammar_close(g);
}

static void test_refused(void)
{
    static const struct {
        const char *schema;
        hd_status st;
        const char *where, *why;
    } cases[] = {
        {"1", HD_FORMAT, "#", "must be an object"},
        {"{'type': 'object', 'properties': {'a': {'type': 'array', 'uniqueItems': true}}}", HD_UNSUPPORTED, "#/properties/a", "uniqueItems"},
        {"{'type': 'integer', 'multipleOf': 2}", HD_UNSUPPORTED, "#", "multipleOf"},
        {"{'not': {}}", HD_UNSUPPORTED, "#", "\"not\""},
        {"{'if': {}}", HD_UNSUPPORTED, "#", "\"if\""},
        {"{'patternProperties': {}}", HD_UNSUPPORTED, "#", "patternProperties"},
        {"{'anyOf': [{'type': 'null'}, {'minProperties': 1}]}", HD_UNSUPPORTED, "#/anyOf/1", "minProperties"},
        {"{'type': 'strin'}", HD_FORMAT, "#", "\"type\""},
        {"{'type': 'string', 'format': 'hostname'}", HD_UNSUPPORTED, "#", "\"format\""},
        {"{'type': 'string', 'minLength': -1}", HD_FORMAT, "#", "minLength"},
        {"{'type': 'string', 'minLength': 1.5}", HD_FORMAT, "#", "minLength"},
        {"{'type': 'string', 'minLength': 20000}", HD_LIMIT, "#", "minLength"},
        {"{'items': [{}]}", HD_UNSUPPORTED, "#", "prefixItems"},
        {"{'$ref': 'http://x/y'}", HD_UNSUPPORTED, "#", "$ref"},
        {"{'$ref': '#/$defs/x'}", HD_FORMAT, "#", "there is nothing"},
        {"{'$ref': '#/$defs/x', '$defs': {'x': {'$ref': '#/$defs/x'}}}", HD_FORMAT, "", "left recursion"},
        {"{'$ref': '#/$defs/x', '$defs': {'x': {'allOf': [{'$ref': '#/$defs/x'}, {'type': 'string'}]}}}", HD_LIMIT, "#", "too deep"},
        {"{'oneOf': [{'type': 'integer'}, {'type': 'number'}]}", HD_UNSUPPORTED, "#/oneOf/1", "oneOf"},
        {"{'oneOf': [{'type': 'string'}, {'const': 'a'}]}", HD_UNSUPPORTED, "#/oneOf/1", "oneOf"},
        {"{'enum': ['a'], 'minLength': 1}", HD_UNSUPPORTED, "#", "enum"},
        {"{'enum': []}", HD_FORMAT, "", "no text fits"},
        {"{'type': 'integer', 'minimum': 2, 'maximum': 1}", HD_FORMAT, "", "no text fits"},
        {"false", HD_FORMAT, "", "no text fits"},
        {"{'type': 'object', 'properties': {'a': {'$ref': '#'}}, 'required': ['a']}", HD_FORMAT, "", "no text fits"},
        {"{'type': 'string', 'pattern': '(a)\\\\1'}", HD_UNSUPPORTED, "#", "escape"},
        {"{'type': 'string', 'pattern': 'a(?=b)'}", HD_UNSUPPORTED, "#", "groups"},
        {"{'type': 'string', 'pattern': '\\\\bx'}", HD_UNSUPPORTED, "#", "escape"},
        {"{'type': 'string', 'pattern': 'a^b'}", HD_UNSUPPORTED, "#", "ends"},
        {"{'type': 'string', 'pattern': '(a'}", HD_FORMAT, "#", "closing )"},
        {"{'type': 'string', 'pattern': '[a'}", HD_FORMAT, "#", "closing ]"},
        {"{'type': 'string', 'pattern': '*'}", HD_FORMAT, "#", "nothing"},
        {"{'type': 'string', 'pattern': 'a', 'maxLength': 3}", HD_UNSUPPORTED, "#", "maxLength"},
        {"{'anyOf': []}", HD_FORMAT, "#", "anyOf"},
        {"{'a'", HD_FORMAT, "", "JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hd_grammar *g = NULL;
        err.msg[0] = 0;
        hd_status st = open_schema(&g, cases[i].schema);
        CHECK(st == cases[i].st, "%s: status %d: %s", cases[i].schema, (int)st, err.msg);
        CHECK(strstr(err.msg, cases[i].why) && strstr(err.msg, cases[i].where), "%s: %s", cases[i].schema, err.msg);
        CHECK(!g, "%s: nothing is opened", cases[i].schema);
        hd_grammar_close(g);
    }
}

/* head, n times middle, tail, n times end. */
static hd_status open_long(const char *head, const char *middle, int n, const char *tail, const char *end)
{
    hd_buf b;
    hd_grammar *g = NULL;
    hd_buf_init(&b, 1 << 26);
    hd_buf_adds(&b, head, NULL);
    for (int i = 0; i < n; i++) hd_buf_adds(&b, middle, NULL);
    hd_buf_adds(&b, tail, NULL);
    for (int i = 0; i < n; i++) hd_buf_adds(&b, end, NULL);
    hd_status st = open_schema(&g, b.data);
    hd_grammar_close(g);
    hd_buf_free(&b);
    return st;
}

static void test_hostile(void)
{
    double t0 = hd_test_cpu_s();
    CHECK(open_long("", "{'items':", 1000000, "{}", "}") != HD_OK, "deep");
    CHECK(open_long("", "{'items':", 1000, "{}", "}") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long("", "{'items':", 30, "{}", "}") == HD_OK, "%s", err.msg);
    CHECK(open_long("", "{'allOf':[", 500, "{}", "]}") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long("", "{'anyOf':[{'type':'null'},", 500, "{}", "]}") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long("{'type':'string','pattern':'", "(", 1000000, "'}", "") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long("{'type':'string','pattern':'", "[", 1000000, "'}", "") == HD_UNSUPPORTED, "%s", err.msg);
    CHECK(open_long("{'type':'string','pattern':'", "a{9000}", 100, "'}", "") == HD_LIMIT, "%s", err.msg);
    CHECK(open_long("{'enum':['x'", ",'aaaaaaaaaaaaaaaaaaaa'", 15000, "]}", "") == HD_OK, "%s", err.msg);
    CHECK(open_long("{'anyOf':[{}", ",{'type':'null'}", 5000, "]}", "") == HD_OK, "%s", err.msg);
    CHECK(open_long("{'oneOf':[{}", ",{'type':'null'}", 5000, "]}", "") == HD_UNSUPPORTED, "%s", err.msg);
    CHECK(open_long("{'required':['x'", ",'y'", 5000, "]}", "") == HD_LIMIT, "%s", err.msg);

    /* Each way doubles: 2^60 branches, if they were written out. */
    hd_buf b;
    hd_buf_init(&b, 1 << 20);
    hd_buf_adds(&b, "{'$ref':'#/$defs/0','minLength':1,'$defs':{", NULL);
    for (int i = 0; i < 60; i++)
        hd_buf_addf(&b, NULL, "'%d':{'anyOf':[{'$ref':'#/$defs/%d'},{'$ref':'#/$defs/%d'}]},", i, i + 1, i + 1);
    hd_buf_adds(&b, "'60':{'type':'string'}}}", NULL);
    hd_grammar *g = NULL;
    CHECK(open_schema(&g, b.data) == HD_LIMIT, "%s", err.msg);
    hd_grammar_close(g);
    hd_buf_free(&b);
    CHECK(hd_test_cpu_s() - t0 < 4 * HD_TEST_SLACK, "%.1f s", hd_test_cpu_s() - t0);
}

/* Any walk ends, and its text is JSON of the schema's top type. */
static void test_walks(void)
{
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++) {
        hd_grammar *g = NULL;
        if (open_schema(&g, languages[i].schema) != HD_OK) continue;
        for (uint64_t seed = 0; seed < 12; seed++) {
            walk_result r = {0};
            hd_rng rng;
            json_error_t e;
            hd_rng_seed(&rng, seed, i);
            CHECK_OK(walk(&r, g, tok, stop, &rng, 3000, &err));
            json_t *j = json_loadb(r.text.data ? r.text.data : "", r.text.len, JSON_DECODE_ANY, &e);
            CHECK(r.ended && j, "%s: %s: %.300s", languages[i].schema, e.text, r.text.data ? r.text.data : "");
            json_decref(j);
            hd_buf_free(&r.text);
        }
        hd_grammar_close(g);
    }
}

/* ---- For test_schema_full.py ---- */

static void walk_line(const char *line, int number, uint64_t seed, int count)
{
    hd_grammar *g = NULL;
    double t0 = walk_cpu_s();
    hd_status st = strncmp(line, "root ::=", 8) == 0 ? hd_grammar_open(&g, line, strlen(line), &err)
                                                     : hd_grammar_open_schema_text(&g, line, strlen(line), &err);
    t0 = walk_cpu_s() - t0;
    if (st != HD_OK) {
        json_t *j = json_pack("{s:i, s:s, s:i}", "line", number, "error", err.msg, "status", (int)st);
        json_dumpf(j, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(j);
        return;
    }
    for (int i = 0; i < count; i++) {
        walk_result r = {0};
        hd_rng rng;
        hd_rng_seed(&rng, seed + (uint64_t)i, (uint64_t)number);
        st = walk(&r, g, tok, stop, &rng, 4000, &err);
        json_t *j = json_pack("{s:i, s:s%, s:b, s:i, s:f, s:f, s:f}", "line", number, "text", r.text.data ? r.text.data : "", r.text.len,
                              "ended", r.ended && st == HD_OK, "tokens", r.n_tok, "mask_us", r.mask_s * 1e6, "worst_us",
                              r.worst_s * 1e6, "open_us", t0 * 1e6);
        if (!j || st != HD_OK) j = json_pack("{s:i, s:s, s:i}", "line", number, "error", st ? err.msg : "half a character", "status", (int)st);
        json_dumpf(j, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(j);
        hd_buf_free(&r.text);
    }
    hd_grammar_close(g);
}

static int walk_lines(char **argv)
{
    hd_source *src = NULL;
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    hd_status st;
    HD_TRY(hd_source_open(&src, argv[2], false, &err));
    HD_TRY(hd_tokenizer_open(&tok, src, &err));
    stop = (int32_t)hd_tokenizer_n_vocab(tok); // a row that no word has
    for (int i = 0; (n = getline(&line, &room, stdin)) > 0; i++) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        walk_line(line, i, strtoull(argv[3], NULL, 10), atoi(argv[4]));
    }
fail:
    if (st != HD_OK) fprintf(stderr, "%s\n", err.msg);
    free(line);
    hd_tokenizer_close(tok);
    hd_source_close(src);
    return st != HD_OK;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "--walk") == 0) return walk_lines(argv);
    CHECK_OK(walk_tokenizer(&tok, &stop, &err));
    if (!tok) return hd_test_end();
    test_languages();
    test_refused();
    test_hostile();
    test_walks();
    hd_tokenizer_close(tok);
    return hd_test_end();
}
