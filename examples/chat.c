/* A conversation in forty lines:  cc chat.c $(pkg-config --cflags --libs hadal) -o chat &&
 * ./chat model.gguf */
#include <hadal.h>
#include <stdio.h>
#include <string.h>

static void show(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    size_t *used = arg;
    if (kind == HD_TEXT_THINKING) return;
    fwrite(text, 1, n, stdout), fflush(stdout);
    char *answer = (char *)(used + 1);
    if (*used + n < 65536) memcpy(answer + *used, text, n), answer[*used += n] = 0;
}

int main(int argc, char **argv)
{
    static struct { size_t used; char text[65536]; } answer[32];
    static char line[32][4096];
    hd_message msg[64];
    hd_err err = {0};
    hd_engine *e = NULL; hd_session *s = NULL; hd_sampler *p = NULL; hd_sample_opts sampling;
    if (argc != 2) return fprintf(stderr, "usage: chat MODEL\n"), 2;
    if (hd_engine_open(&e, argv[1], NULL, &err) || hd_session_open(&s, e, &err)) goto end;
    hd_engine_sampling(e, &sampling);
    if (hd_sampler_open(&p, &sampling, hd_engine_n_vocab(e), &err)) goto end;
    for (int i = 0; i < 32 && fputs("> ", stdout) >= 0 && fgets(line[i], sizeof line[i], stdin); i++) {
        hd_ids ids = {0};
        hd_generate_opts o = {.chat = true, .max_tok = 300, .text = show, .arg = &answer[i]};
        msg[2 * i] = (hd_message){.role = "user", .text = line[i]};
        msg[2 * i + 1] = (hd_message){.role = "assistant", .text = answer[i].text};
        if (hd_engine_render(e, msg, 2 * i + 1, -1, &ids, &err) || hd_session_sync(s, ids.id, ids.n, NULL, &err)) goto end;
        hd_sampler_reset(p, ids.id, ids.n), hd_ids_free(&ids);
        if (hd_generate(s, p, &o, NULL, &err)) goto end;
        puts("");
    }
end:
    if (err.code) fprintf(stderr, "chat: %s\n", err.msg);
    hd_sampler_close(p), hd_session_close(s), hd_engine_close(e);
    return err.code != HD_OK;
}
