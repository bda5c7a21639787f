/* Plugin of qemu that counts how often every block of instructions is executed in a run.
 *
 * At the end of a run its blocks are appended to the file edgepress-blocks.txt of the current folder: a line "mark
 * <number>", and for every block a line "<times> <instructions, eight hexadecimal digits each>". */
#include "plugin.h"

struct block {
    struct block *next;
    uint64_t times, before;
    size_t length;
    uint32_t words[];
};

static struct block *blocks;

static void translated(plugin_id id, struct qemu_plugin_tb *given) {
    (void)id;
    size_t length = qemu_plugin_tb_n_insns(given);
    struct block *block = calloc(1, sizeof *block + length * sizeof *block->words);
    if (block == NULL)
        abort();
    block->length = length;
    for (size_t position = 0; position < length; position++)
        block->words[position] = word_of(given, position);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(given, ADD, &block->times, 1);
}

static void begin(void) {
    for (struct block *block = blocks; block != NULL; block = block->next)
        block->before = block->times;
}

static void end(int number) {
    FILE *file = fopen("edgepress-blocks.txt", "a");
    if (file == NULL)
        abort();
    fprintf(file, "mark %d\n", number);
    for (struct block *block = blocks; block != NULL; block = block->next)
        if (block->times > block->before) {
            fprintf(file, "%llu ", (unsigned long long)(block->times - block->before));
            for (size_t position = 0; position < block->length; position++)
                fprintf(file, "%08x", block->words[position]);
            fputc('\n', file);
        }
    fclose(file);
}
