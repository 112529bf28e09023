/* A vocabulary as a tree of bytes: what walks it with an automaton meets each common beginning of words once.
 *
 * Nodes lie in the order of a walk that goes down before it goes on, so a walk is one loop over an array:
 *
 *     for (i = 0; i < n;)
 *         if (the automaton cannot take node[i].byte at node[i].depth) i = node[i].skip;   // past all
 *         below it else i++;
 *
 * There are several trees: HD_TREE_PARTS parts by how many plain characters a word is made of.  Plain are
 * those that stand for themselves in a JSON string: whole characters of UTF-8 but controls, `"` and `\`.  An
 * automaton that takes any k plain characters takes whole parts without a walk. */
#ifndef HD_MODEL_VOCAB_TREE_H
#define HD_MODEL_VOCAB_TREE_H

#include "model/tokenizer.h"

typedef struct {
    uint32_t skip;  // the first node that is not below this one
    int32_t id;     // the word that ends here, -1: none
    uint16_t depth; // 0: a word's first byte
    uint8_t byte;
} hd_tree_node;

enum { HD_TREE_PARTS = 6, HD_TREE_DEPTH = 1024 }; // longer words are left out

struct hd_vocab_tree {
    hd_tree_node *node;
    uint32_t first[HD_TREE_PARTS + 1]; // part p: nodes first[p] .. first[p + 1]
    int plain[HD_TREE_PARTS];          // its words have at most so many characters, all plain; 0: any bytes
    uint64_t *bit[HD_TREE_PARTS];      // its ids, for the parts of plain words
    int64_t n_id;                      // ids 0 .. n_id - 1 ...
    size_t n_word64;                   // ... take so many words of 64 bits
    int max_depth;                     // bytes of the longest word
};

hd_status hd_vocab_tree_open(hd_vocab_tree **out, const hd_tokenizer *t, hd_err *err);
void hd_vocab_tree_close(hd_vocab_tree *t);

#endif
