/* Names of models: the catalogue, owner/repo, and which file of a repository is meant. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cli/hub.h"

/* Repositories of the models' makers where these publish GGUF, else of well-known converters. */
static const hd_hub_entry catalogue[] = {
    {"r1:1.5b", "unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF", "Q4_K_M"},
    {"r1:7b", "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF", "Q4_K_M"},
    {"r1:8b", "unsloth/DeepSeek-R1-Distill-Llama-8B-GGUF", "Q4_K_M"},
    {"r1:8b-0528", "unsloth/DeepSeek-R1-0528-Qwen3-8B-GGUF", "Q4_K_M"},
    {"r1:14b", "unsloth/DeepSeek-R1-Distill-Qwen-14B-GGUF", "Q4_K_M"},
    {"r1:32b", "unsloth/DeepSeek-R1-Distill-Qwen-32B-GGUF", "Q4_K_M"},
    {"r1:70b", "unsloth/DeepSeek-R1-Distill-Llama-70B-GGUF", "Q4_K_M"},
    {"r1:671b", "unsloth/DeepSeek-R1-GGUF", "Q4_K_M"},
    {"r1:671b-0528", "unsloth/DeepSeek-R1-0528-GGUF", "Q4_K_M"},
    {"v3:671b", "unsloth/DeepSeek-V3-0324-GGUF", "Q4_K_M"},
    {"coder-v2:16b", "bartowski/DeepSeek-Coder-V2-Lite-Instruct-GGUF", "Q4_K_M"},
    {"smollm2:135m", "bartowski/SmolLM2-135M-Instruct-GGUF", "Q8_0"},
    {"smollm2:360m", "bartowski/SmolLM2-360M-Instruct-GGUF", "Q8_0"},
    {"smollm2:1.7b", "bartowski/SmolLM2-1.7B-Instruct-GGUF", "Q4_K_M"},
    {"qwen2.5:0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5:1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5:3b", "Qwen/Qwen2.5-3B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5-coder:0.5b", "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5-coder:1.5b", "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5-coder:3b", "Qwen/Qwen2.5-Coder-3B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5-coder:7b", "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5-coder:14b", "Qwen/Qwen2.5-Coder-14B-Instruct-GGUF", "q4_k_m"},
    {"qwen2.5-coder:32b", "Qwen/Qwen2.5-Coder-32B-Instruct-GGUF", "q4_k_m"},
    {"qwen3:0.6b", "Qwen/Qwen3-0.6B-GGUF", "Q8_0"},
    {"qwen3:1.7b", "Qwen/Qwen3-1.7B-GGUF", "Q8_0"},
    {"qwen3:4b", "Qwen/Qwen3-4B-GGUF", "Q4_K_M"},
    {"qwen3:8b", "Qwen/Qwen3-8B-GGUF", "Q4_K_M"},
    {"qwen3:14b", "Qwen/Qwen3-14B-GGUF", "Q4_K_M"},
    {"qwen3:32b", "Qwen/Qwen3-32B-GGUF", "Q4_K_M"},
    {"llama3.2:1b", "bartowski/Llama-3.2-1B-Instruct-GGUF", "Q4_K_M"},
    {"llama3.2:3b", "bartowski/Llama-3.2-3B-Instruct-GGUF", "Q4_K_M"},
    {"llama3.1:8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "Q4_K_M"},
    {"llama3.3:70b", "bartowski/Llama-3.3-70B-Instruct-GGUF", "Q4_K_M"},
};

const hd_hub_entry *hd_hub_catalogue(int i)
{
    return i >= 0 && (size_t)i < sizeof catalogue / sizeof catalogue[0] ? &catalogue[i] : NULL;
}

static bool word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

/* A part of owner/repo: what the hub allows.  Not "--", which joins the two in our folder's name. */
static bool good_word(const char *p, size_t n)
{
    if (n == 0 || p[0] == '.' || p[0] == '-') return false;
    for (size_t i = 0; i < n; i++)
        if (!word_char(p[i]) || (i && p[i] == p[i - 1] && (p[i] == '-' || p[i] == '.'))) return false;
    return true;
}

bool hd_hub_safe_path(const char *path)
{
    size_t n = strlen(path);
    int depth = 0;
    if (n == 0 || n >= HD_HUB_PATH) return false;
    for (const char *p = path; *p; depth++) {
        size_t len = strcspn(p, "/");
        if (len == 0 || len > 200 || p[0] == '.' || depth == 4)
            return false; // "", ".", "..", hidden; too deep
        for (size_t i = 0; i < len; i++)
            if (p[i] < 0x20 || p[i] > 0x7e || p[i] == '\\' || p[i] == ':') return false;
        p += len;
        if (*p == '/' && !*++p) return false;
    }
    return true;
}

hd_status hd_hub_parse(hd_hub_name *n, const char *text, hd_err *err)
{
    static const char *const hosts[] = {"https://huggingface.co/", "huggingface.co/", "hf.co/"};
    *n = (hd_hub_name){"", ""};
    for (size_t i = 0; i < sizeof catalogue / sizeof catalogue[0]; i++) {
        if (strcasecmp(catalogue[i].name, text) != 0) continue;
        snprintf(n->repo, sizeof n->repo, "%s", catalogue[i].repo);
        snprintf(n->pick, sizeof n->pick, "%s", catalogue[i].pick);
        return HD_OK;
    }
    const char *p = text;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        if (strncmp(p, hosts[i], strlen(hosts[i])) == 0) {
            p += strlen(hosts[i]);
            break;
        }
    size_t owner = strcspn(p, "/"), rest = p[owner] ? strcspn(p + owner + 1, ":") : 0;
    const char *pick = p[owner] && p[owner + 1 + rest] == ':' ? p + owner + 1 + rest + 1 : "";
    if (!good_word(p, owner) || !p[owner] || !good_word(p + owner + 1, rest) ||
        owner + 1 + rest >= sizeof n->repo || (p[owner + 1 + rest] == ':' && !hd_hub_safe_path(pick)))
        return hd_fail(err, HD_USAGE,
                       "name '%.100s': neither in the catalogue (hadal pull --list) nor owner/repo[:format]",
                       text);
    memcpy(n->repo, p, owner + 1 + rest);
    n->repo[owner + 1 + rest] = 0;
    snprintf(n->pick, sizeof n->pick, "%s", pick);
    return HD_OK;
}

/* Formats stand between dots, dashes and slashes, as in Model-Q4_K_M.gguf, model.q4_k_m.gguf, UD-Q4_K_XL/...;
 * so that Q4_K does not take Q4_K_M and Q4_0 not IQ4_0. */
bool hd_hub_matches(const char *path, const char *pick)
{
    size_t n = strlen(pick);
    if (strcmp(path, pick) == 0) return true;
    const char *base = strrchr(path, '/');
    if (base && strcmp(base + 1, pick) == 0) return true;
    if (n == 0) return false;
    for (const char *p = path; *p; p++) {
        bool starts = p == path || strchr(".-/", p[-1]);
        if (starts && strncasecmp(p, pick, n) == 0 && p[n] && strchr(".-/", p[n])) return true;
    }
    return false;
}

int hd_hub_part(const char *path)
{
    size_t n = strlen(path);
    const size_t tail = sizeof "-00001-of-00002.gguf" - 1;
    if (n < tail || path[n - tail] != '-' || strncmp(path + n - tail + 6, "-of-", 4) != 0) return 0;
    int no = 0;
    for (size_t i = 1; i <= 5; i++) {
        char c = path[n - tail + i];
        if (c < '0' || c > '9') return 0;
        no = no * 10 + (c - '0');
    }
    return no;
}

static bool is_gguf(const char *path)
{
    size_t n = strlen(path);
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    return n > 5 && strcasecmp(path + n - 5, ".gguf") == 0 && strncasecmp(base, "mmproj", 6) != 0;
}

/* The best of those that match: exactly named, whole rather than split, then the shortest name. */
static int best_match(const char *const *path, int n, const char *pick, int *count)
{
    int best = -1;
    *count = 0;
    for (int i = 0; i < n; i++) {
        if (!is_gguf(path[i]) || hd_hub_part(path[i]) > 1 || (pick && !hd_hub_matches(path[i], pick)))
            continue;
        ++*count;
        if (pick && strcmp(path[i], pick) == 0) return i;
        if (best < 0 || hd_hub_part(path[i]) < hd_hub_part(path[best]) ||
            (hd_hub_part(path[i]) == hd_hub_part(path[best]) && strlen(path[i]) < strlen(path[best])))
            best = i;
    }
    return best;
}

int hd_hub_choose(const char *const *path, int n, const char *pick)
{
    static const char *const usual[] = {"q4_k_m", "q8_0", "q4_0", "q4_k_s", "q5_k_m", "q6_k", "bf16", "f16"};
    int count, best;
    if (pick[0]) return best_match(path, n, pick, &count);
    best = best_match(path, n, NULL, &count);
    if (count < 2) return best;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if ((best = best_match(path, n, usual[i], &count)) >= 0) return best;
    return HD_HUB_SEVERAL;
}
