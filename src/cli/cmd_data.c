/* hadal data: texts to what training reads. */
#include <string.h>

#include "cli/cmd.h"
#include "cli/data.h"

static hd_status run(int argc, char **argv, hd_err *err)
{
    static const struct {
        const char *name;
        hd_status (*run)(int argc, char **argv, hd_err *err);
    } part[] = {{"pack", hd_data_cmd_pack},
                {"get", hd_data_cmd_get},
                {"info", hd_data_cmd_info},
                {"show", hd_data_cmd_show}};
    for (int i = 0; argc > 1 && i < 4; i++)
        if (strcmp(argv[1], part[i].name) == 0) return part[i].run(argc - 1, argv + 1, err);
    return hd_fail(err, HD_USAGE, "data: %.40s: pack, get, info or show is needed: hadal data --help",
                   argc > 1 ? argv[1] : "nothing asked");
}

const hd_command hd_cmd_data = {
    .verb = "data",
    .summary = "texts to token shards for training; public corpora",
    .help = "usage: hadal data pack MODEL FILE... -o DIR [options]\n"
            "       hadal data get [ID | URL --sha256 SUM] [options]\n"
            "       hadal data info DIR [options]\n"
            "       hadal data show FILE | DIR --tokenizer MODEL [options]\n\n"
            "pack: documents of FILEs as ids, in shards in DIR.  MODEL is a model, or a folder with a "
            "tokenizer.  A FILE is\n"
            "text, .jsonl, either of them behind .zst, or flat .parquet.\n\n"
            "  -o, --output DIR       the folder\n"
            "      --field NAME       JSONL field or Parquet column (default text)\n"
            "      --divider LINE     text files: a line that ends a document; '' an empty line; '\\n' every "
            "line is one.\n"
            "                         Without it a file is one document\n"
            "      --chat             conversations: a JSON object a line, in the model's chat format, loss "
            "on the answers alone\n"
            "      --chat-format NAME instead of the one that the model's template tells\n"
            "      --dedup            leave out documents that are there already, byte for byte or nearly\n"
            "      --near X           the share of common word 5-grams that is nearly (default 0.8)\n"
            "      --against FILE     leave out documents that share 13 words in a row (8 to 12 with a "
            "shorter one) with a text\n"
            "                         of this evaluation; may be given several times\n"
            "      --val-share X      this share of documents goes to DIR/val; of documents of over 65,536 "
            "ids, their end\n"
            "      --shard-ids N      ids of a shard at most (default 67108864)\n"
            "      --replace          pack anew what DIR holds\n"
            "  -t, --threads N        default: physical cores available\n"
            "      --json             the report as JSON\n\n"
            "get: a public corpus by name, checked by its SHA-256 sum; without a name, the list.  Prints the "
            "paths of its files.\n"
            "HADAL_DATA=DIR points at copies in DIR/ID; HADAL_DATA_MIRROR=URL asks URL/ID/FILE instead.\n\n"
            "      --sha256 SUM       of URL: any one file\n"
            "      --retries N        give up after N attempts without progress (default 8)\n"
            "      --json             the list, or the files, as JSON\n\n"
            "info: what a folder of shards holds.  show: its documents as text, or those of a file before it "
            "is packed.\n\n"
            "      --check            info: read all of it, and compare its checksums\n"
            "      --tokenizer MODEL  show: spells the ids\n"
            "      --from N, -n N     show: first document (default 1), how many (default 10)\n"
            "      --field, --divider, --chat   show: of a file, as in pack\n"
            "      --json             show: a JSON object a document\n\n"
            "examples:\n"
            "  hadal data get tinyshakespeare\n"
            "  hadal data pack my-tokenizer stories.txt --divider '<|endoftext|>' -o packed --val-share 0.02 "
            "--dedup\n"
            "  hadal data pack smollm2.gguf train.jsonl --chat --against test.jsonl -o sft\n"
            "  hadal data show packed --tokenizer my-tokenizer -n 3\n",
    .run = run,
};
