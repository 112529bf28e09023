/* See chat_template.h.  A template does in Jinja what its format's writer (model/chat_formats.c) does in C,
 * function calls apart, and is told as that format by hd_chat_told: hence the names of its variables. */
#include "train/chat_template.h"

#include <stdio.h>
#include <string.h>

#define DS_BOS "<｜begin▁of▁sentence｜>"
#define DS_EOS "<｜end▁of▁sentence｜>"

/* answer: what stands for an assistant's message; opening: what the model is given of its own turn. */
#define DEEPSEEK(answer, opening)                                                                            \
    "{%- set ns = namespace(is_first_sp=true, is_tool=false, is_output_first=true) -%}\n"                    \
    "{{- bos_token -}}\n"                                                                                    \
    "{%- for m in messages if m['role'] == 'system' -%}\n"                                                   \
    "{{- ('' if ns.is_first_sp else '\\n\\n') + m['content'] -}}{%- set ns.is_first_sp = false -%}\n"        \
    "{%- endfor -%}\n"                                                                                       \
    "{%- for m in messages -%}\n"                                                                            \
    "{%- if m['role'] == 'user' -%}\n"                                                                       \
    "{{- '<｜User｜>' + m['content'] -}}{%- set ns.is_tool = false -%}\n"                                  \
    "{%- elif m['role'] == 'assistant' -%}\n"                                                                \
    "{%- if ns.is_tool -%}{{- '<｜tool▁outputs▁end｜>' + m['content'] -}}\n"                           \
    "{%- else -%}{{- '<｜Assistant｜>' + " answer " -}}{%- endif -%}\n"                                      \
    "{{- '" DS_EOS "' -}}{%- set ns.is_tool = false -%}\n"                                                   \
    "{%- elif m['role'] == 'tool' -%}\n"                                                                     \
    "{{- '<｜tool▁outputs▁begin｜>' if ns.is_output_first else '\\n' -}}\n"                            \
    "{{- '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' -}}\n"               \
    "{%- set ns.is_tool = true -%}{%- set ns.is_output_first = false -%}\n"                                  \
    "{%- endif -%}\n"                                                                                        \
    "{%- endfor -%}\n"                                                                                       \
    "{%- if ns.is_tool -%}{{- '<｜tool▁outputs▁end｜>' -}}\n"                                          \
    "{%- elif add_generation_prompt -%}{{- '" opening "' -}}{%- endif -%}"

static const hd_chat_template templates[] = {
    {.name = "chatml",
     .bos = "<|endoftext|>",
     .eos = "<|im_end|>",
     .pad = "<|endoftext|>",
     .special = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
     .text = "{%- for m in messages -%}\n"
             "{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' -}}\n"
             "{%- endfor -%}\n"
             "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"},
    {.name = "deepseek-v3",
     .bos = DS_BOS,
     .eos = DS_EOS,
     .pad = DS_EOS,
     .adds_bos = true,
     .special = {DS_BOS, DS_EOS, "<｜User｜>", "<｜Assistant｜>"},
     .text = DEEPSEEK("m['content']", "<｜Assistant｜>")},
    {.name = "deepseek-r1",
     .bos = DS_BOS,
     .eos = DS_EOS,
     .pad = DS_EOS,
     .adds_bos = true,
     .special = {DS_BOS, DS_EOS, "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"},
     .text = DEEPSEEK("m['content'].split('</think>')[-1]", "<｜Assistant｜><think>\\n")},
    {.name = "llama3",
     .bos = "<|begin_of_text|>",
     .eos = "<|eot_id|>",
     .pad = "<|end_of_text|>",
     .adds_bos = true,
     .special = {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                 "<|eot_id|>"},
     .text = "{{- bos_token -}}\n"
             "{%- for m in messages -%}\n"
             "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + "
             "'<|eot_id|>' -}}\n"
             "{%- endfor -%}\n"
             "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' "
             "-}}{%- endif -%}"},
};
enum { N_TEMPLATES = sizeof templates / sizeof templates[0] };

const hd_chat_template *hd_chat_template_at(int i)
{
    return i >= 0 && i < N_TEMPLATES ? &templates[i] : NULL;
}

hd_status hd_chat_template_find(const hd_chat_template **out, const char *name, hd_err *err)
{
    char known[200] = "";
    size_t n = 0;
    for (int i = 0; i < N_TEMPLATES; i++) {
        *out = &templates[i];
        if (strcmp(templates[i].name, name) == 0) return HD_OK;
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", templates[i].name);
    }
    *out = NULL;
    return hd_fail(err, HD_USAGE,
                   "tokenizer: chat format: '%.40s': there is no template for it; there are %s", name, known);
}
