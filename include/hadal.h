/* hadal: run DeepSeek-class reasoning models (V2, V3, R1 and the R1 distillations) on the hardware you have.
 *
 * The public library, from a model file to an answer:
 *
 *     hd_engine    a model in memory with its tokenizer and chat format
 *     hd_tokenizer text to ids and back
 *     hd_session   one timeline of ids and what the model remembers of it (the cache)
 *     hd_sampler   how the next id is chosen
 *     hd_generate  the loop: choose, append, decode to text, stop
 *
 * Types are opaque; no tensor shows here.  Every fallible call returns hd_status and fills the caller's
 * hd_err (which may be NULL) with what failed, where, and why.  Nothing prints, exits or aborts, but for
 * warnings about a model's template on stderr.
 *
 * Threads: the sessions of one engine share its work memory, so an engine and all its sessions and samplers
 * belong to one thread at a time.  Two engines are independent.  Calls block until done; the only way to end
 * one early is its stop flag.
 *
 * Ownership: an argument is borrowed for the length of the call unless a comment says longer; `_open`
 * pairs with `_close`, which accepts NULL; ids that a call appends to an hd_ids and strings it returns
 * are the caller's. */
#ifndef HADAL_H
#define HADAL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HADAL_VERSION "0.1.0"

/* The shared library shows these functions and no others. */
#define HD_API __attribute__((visibility("default")))

typedef enum {
    HD_OK = 0,
    HD_USAGE,       // the caller asked for something that makes no sense
    HD_IO,          // the system refused: open, read, write, map
    HD_FORMAT,      // bytes from outside are malformed
    HD_UNSUPPORTED, // well-formed, but nothing here can run it
    HD_LIMIT,       // a cap was reached: context full, buffer cap, memory plan
    HD_NOMEM,       // an allocation failed
    HD_CANCELLED,   // the caller's stop flag was seen
} hd_status;

/* What went wrong, for a person: "what: where: why".  Plain storage, the caller's; no clean-up. */
typedef struct {
    hd_status code;
    char msg[512];
} hd_err;

/* The version of the library that is linked, which may be newer than the header's HADAL_VERSION. */
HD_API const char *hd_version(void);

/* ---- Ids and text -------------------------------------------------------------------------------------- */

/* A growing list of token ids.  Start from zeros; calls append; hd_ids_free gives the memory back
 * and leaves zeros. */
typedef struct {
    int32_t *id;
    int64_t n, cap;
} hd_ids;
HD_API void hd_ids_free(hd_ids *v);
HD_API hd_status hd_ids_add(hd_ids *v, int32_t id, hd_err *err); // HD_NOMEM

typedef struct hd_tokenizer hd_tokenizer;

/* Ids 0 .. n-1 have a text (the model's matrix may be larger). */
HD_API int64_t hd_tokenizer_n_vocab(const hd_tokenizer *t);
/* Append the ids of n bytes of text (any bytes; invalid UTF-8 counts as U+FFFD).  No BOS is added.  What the
 * text spells like a special token stays plain text; added tokens that are not special are matched.
 * HD_NOMEM, HD_LIMIT (an absurd length). */
HD_API hd_status hd_tokenizer_encode(const hd_tokenizer *t, const void *text, size_t n, hd_ids *out, hd_err *err);
/* The exact bytes of n ids in a NUL-terminated string for the caller to free(); *n_bytes (may be NULL) is
 * its length without the NUL.  Special tokens are spelled when `special`, else skipped.  One id may be
 * half a character. */
HD_API hd_status hd_tokenizer_text(const hd_tokenizer *t, const int32_t *id, int64_t n, bool special, char **text,
                                   size_t *n_bytes, hd_err *err);
/* The id whose text is exactly this (special or not), or -1. */
HD_API int32_t hd_tokenizer_find(const hd_tokenizer *t, const char *text);
HD_API int32_t hd_tokenizer_bos(const hd_tokenizer *t);    // -1: none
HD_API bool hd_tokenizer_adds_bos(const hd_tokenizer *t);  // plain text starts with it

/* ---- Engine -------------------------------------------------------------------------------------------- */

typedef struct hd_engine hd_engine;

/* Zeros are the defaults. */
typedef struct {
    int n_threads;           // 0: the physical cores this process may use
    bool exact;              // f32 activations and sums: slow, for comparing
    bool no_pack;            // keep the file's own pages: less memory, slower, the same bits
    const char *cache_type;  // "bf16", "f16", "q8_0", "f32"; NULL: what suits the model, bf16 or f16
    int64_t ctx_tok;         // positions of one session; 0: what the model was made for and memory allows
    int n_sessions;          // sessions that can be full at once; 0: one
    const char *chat_format; // a name from the table of formats; NULL: told from the model's own template
    bool progress;           // a loading bar on stderr when that is a terminal
} hd_engine_opts;

/* Open a model: a Hugging Face directory or a GGUF file (the first of several).  Takes as long as reading
 * the file.  o may be NULL.  HD_IO, HD_FORMAT, HD_UNSUPPORTED, HD_LIMIT (does not fit in memory),
 * HD_NOMEM, HD_USAGE. */
HD_API hd_status hd_engine_open(hd_engine **out, const char *path, const hd_engine_opts *o, hd_err *err);
HD_API void hd_engine_close(hd_engine *e); // after its sessions

/* Borrowed, as long as the engine; NULL when the model came without a tokenizer (*err says why). */
HD_API const hd_tokenizer *hd_engine_tokenizer(const hd_engine *e, hd_err *err);
HD_API int64_t hd_engine_ctx_tok(const hd_engine *e);  // positions a session can hold
HD_API int64_t hd_engine_n_vocab(const hd_engine *e);  // length of a row of logits
HD_API bool hd_engine_is_stop(const hd_engine *e, int32_t id); // ends a turn
HD_API const char *hd_engine_chat_name(const hd_engine *e); // of its chat format, NULL: none known

/* A call of a tool by the assistant: the tool's name, and its arguments as JSON text. */
typedef struct {
    const char *name, *arguments;
} hd_call;

/* One message of a conversation.  role: "system", "user", "assistant", "tool".  thinking: an
 * assistant's reasoning, or NULL; formats that drop the thinking of earlier turns drop it.  call: the
 * tools it called after its text. */
typedef struct {
    const char *role, *text, *thinking;
    const hd_call *call;
    int n_call;
} hd_message;

/* Append the ids of the whole conversation, ending where the assistant is to speak.  thinking: 1 on, 0
 * off, -1 the format's default (formats without a switch ignore it).  HD_UNSUPPORTED: the model has no
 * known chat format. */
HD_API hd_status hd_engine_render(const hd_engine *e, const hd_message *msg, int n_msg, int thinking, hd_ids *out,
                                  hd_err *err);

/* ---- Sampler ------------------------------------------------------------------------------------------- */

/* How the next id is chosen, in this order: bias and penalties change the logits, the temperature
 * divides them, then top-k, top-p and min-p shorten the list, each seeing what the former left (the
 * order of transformers). */
typedef struct {
    float temperature;         // 0: greedy, the lowest id among equals
    int top_k;                 // keep the k likeliest; 0: all
    float top_p;               // keep the fewest that reach this probability together; 1: all
    float min_p;               // drop what is less likely than this times the likeliest; 0: nothing
    float repetition_penalty;  // divides positive, multiplies negative logits of ids seen anywhere (CTRL); 1: none
    float presence_penalty;    // subtracted once for every id generated before; 0: none
    float frequency_penalty;   // subtracted as often as the id was generated; 0: none
    uint64_t seed;             // the same seed, model and prompt give the same text
    const struct hd_bias *bias; // added to logits; copied
    int n_bias;
} hd_sample_opts;
typedef struct hd_bias {
    int32_t id;
    float add; // -INFINITY forbids the id
} hd_bias;

typedef struct hd_sampler hd_sampler;

/* What the model's own files ask for, else what suits its family; the seed is taken from the system. */
HD_API void hd_engine_sampling(const hd_engine *e, hd_sample_opts *o);
/* n_vocab: length of the rows it will see.  HD_USAGE names an option out of range. */
HD_API hd_status hd_sampler_open(hd_sampler **out, const hd_sample_opts *o, int64_t n_vocab, hd_err *err);
HD_API void hd_sampler_close(hd_sampler *s);
/* Start a text: forget what was generated, note the prompt (for the repetition penalty),
 * return to the seed. */
HD_API void hd_sampler_reset(hd_sampler *s, const int32_t *prompt, int64_t n);
/* Choose from one row of logits [n_vocab]; does not change it, and does not note the id. */
HD_API int32_t hd_sampler_pick(hd_sampler *s, const float *logits);
HD_API void hd_sampler_accept(hd_sampler *s, int32_t id); // note an id that was generated

/* ---- Session ------------------------------------------------------------------------------------------- */

typedef struct hd_session hd_session;

/* Told between the slices of a long prompt.  stop (may be NULL) is read between passes, and may be set by a
 * signal handler or another thread: nonzero ends the call with HD_CANCELLED, and the session stays usable. */
typedef struct {
    void (*progress)(void *arg, int64_t done_tok, int64_t total_tok); // NULL: none
    void *arg;
    const volatile sig_atomic_t *stop;
} hd_watch;

/* The engine is borrowed as long as the session.  HD_NOMEM. */
HD_API hd_status hd_session_open(hd_session **out, hd_engine *e, hd_err *err);
HD_API void hd_session_close(hd_session *s);
/* A second session with the same past; the cache is shared until they part. */
HD_API hd_status hd_session_fork(hd_session **out, hd_session *s, hd_err *err);

/* Make these ids the timeline and compute what is not yet in the cache: what the old and the new timeline
 * have in common at their beginning is kept.  HD_LIMIT: longer than the context (nothing is changed, nothing
 * is ever cut off silently), or the engine's pages are taken by other sessions.  HD_USAGE: no ids, or one
 * outside the vocabulary.  w may be NULL. */
HD_API hd_status hd_session_sync(hd_session *s, const int32_t *id, int64_t n, const hd_watch *w, hd_err *err);
/* The row of logits [n_vocab] after the timeline's last id, computed if need be; valid until the next call
 * with any session of this engine.  HD_USAGE: the timeline is empty. */
HD_API hd_status hd_session_logits(hd_session *s, const float **logits, hd_err *err);
/* Append one id, chosen by the caller or by the sampler.  HD_LIMIT: the context is full. */
HD_API hd_status hd_session_push(hd_session *s, int32_t id, hd_err *err);
HD_API hd_status hd_session_next(hd_session *s, hd_sampler *p, int32_t *id, hd_err *err);
/* Forget all but the first n ids; n beyond the end changes nothing. */
HD_API void hd_session_rewind(hd_session *s, int64_t n);
HD_API int64_t hd_session_len(const hd_session *s);
HD_API const int32_t *hd_session_ids(const hd_session *s); // borrowed, valid until the timeline changes

/* One pass over several sessions of one engine: each that has no logits yet gets its next rows computed, one
 * row of those that are generating and slices of the prompts of the others.  Afterwards hd_session_ready says
 * who has logits.  A session's logits are the same bits alone and in company. */
HD_API hd_status hd_session_pass(hd_session *const *s, int n, hd_err *err);
/* As hd_session_sync, without computing: passes will. */
HD_API hd_status hd_session_queue(hd_session *s, const int32_t *id, int64_t n, hd_err *err);
HD_API bool hd_session_ready(const hd_session *s);

/* Speculation: guess ids, check all guesses in one pass, keep those that the sampler would have chosen.  The
 * text does not change, with any sampling; only the number of passes does. */
typedef enum {
    HD_DRAFT_NONE,
    HD_DRAFT_LOOKUP, // continue as the same words went on earlier in the timeline
    HD_DRAFT_MODEL,  // a smaller model with the same vocabulary
    HD_DRAFT_MTP,    // the model's own multi-token-prediction layer
} hd_draft_kind;
/* small: the engine of HD_DRAFT_MODEL, borrowed as long as the session; else NULL.  max: guesses a pass, 0:
 * a good number.  HD_UNSUPPORTED: no such layer, or another vocabulary.  HD_USAGE: max out of range.  An
 * empty session only. */
HD_API hd_status hd_session_draft(hd_session *s, hd_draft_kind kind, hd_engine *small, int max, hd_err *err);

/* Keep a session on disk and take it up again: the ids and the cache, with the model's fingerprint and a
 * checksum.  The file is written beside `path` and renamed, so that it is whole at any moment.  Restoring
 * replaces the timeline; on an error the session is empty.  HD_FORMAT: cut short, altered, or of another
 * model; HD_LIMIT: longer than the context; HD_IO. */
HD_API hd_status hd_session_save(hd_session *s, const char *path, hd_err *err);
HD_API hd_status hd_session_restore(hd_session *s, const char *path, hd_err *err);

/* ---- Grammars ------------------------------------------------------------------------------------------ */

/* What an answer must keep to: ids that would leave it are never picked.  Compiled once, used by any
 * number of texts. */
typedef struct hd_grammar hd_grammar;
/* From GBNF: rules `name ::= ...`, the text is a `root` (doc/grammar.md).  HD_FORMAT: syntax, an
 * unknown rule, left recursion, or no text fits; HD_LIMIT: larger, deeper or with more repetitions
 * than the caps allow. */
HD_API hd_status hd_grammar_open(hd_grammar **out, const char *text, size_t n, hd_err *err);
/* From the text of a JSON schema: the answer is a JSON value that it accepts.  HD_UNSUPPORTED names a keyword
 * that cannot be enforced, and where it stands; HD_FORMAT, HD_LIMIT. */
HD_API hd_status hd_grammar_open_schema_text(hd_grammar **out, const char *text, size_t n, hd_err *err);
HD_API void hd_grammar_close(hd_grammar *g); // a text that follows it keeps it

/* ---- Generation ---------------------------------------------------------------------------------------- */

typedef enum { HD_TEXT_THINKING, HD_TEXT_ANSWER } hd_text_kind;
typedef enum { HD_STOP_TURN, HD_STOP_LENGTH, HD_STOP_STRING, HD_STOP_CONTEXT, HD_STOP_FLAG } hd_stop_reason;

/* Zeros are the defaults. */
typedef struct {
    int64_t max_tok;           // 0: until the turn or the context ends
    const char *const *stop;   // strings that end the answer and are not part of it, also across token borders
    int n_stop;
    bool chat;                 // separate thinking from answer, as the chat format marks it
    bool limit_thinking;       // force the end of thinking after think_tok ids of it
    int64_t think_tok;
    hd_grammar *grammar;       // of the answer, not of its thinking; borrowed; NULL: none
    bool ignore_stop_ids;      // go on past the end of the turn (for measuring)
    /* Pieces of text as they become sure: whole characters, valid UTF-8 (what is not is U+FFFD), never part
     * of a stop string.  NULL: none. */
    void (*text)(void *arg, hd_text_kind kind, const char *text, size_t n);
    void *arg;
    const volatile sig_atomic_t *stop_flag; // see hd_watch; ends the text with HD_STOP_FLAG, not with an error
} hd_generate_opts;

typedef struct {
    hd_stop_reason why;
    int64_t n_tok, n_thinking; // ids generated (the one that ended the turn included), those of them inside a thought
    int64_t n_passes;          // passes of the model
    int64_t n_drafted, n_accepted;
    double seconds;
} hd_generated;

/* Continue the timeline.  r may be NULL.  Errors are the session's; a full context is not one,
 * but the reason why. */
HD_API hd_status hd_generate(hd_session *s, hd_sampler *p, const hd_generate_opts *o, hd_generated *r, hd_err *err);

#ifdef __cplusplus
}
#endif
#endif
