/* Plugin of qemu that counts how often every block of instructions is executed in a run.
 *
 * At the end of a run its blocks are appended to the file edgepress-blocks.txt of the current folder:
 *
 *     mark <number>
 *     block <position> <instructions, eight hexadecimal digits each>     before the block is named first
 *     <position> <times>
 */
#include "plugin.h"

enum { MOST = 1 << 22 }; /* blocks: one process translates some hundred thousand; memory is taken as they come */

struct block {
    bool written;
    size_t length;
    uint32_t words[];
};

static struct block *blocks[MOST];
static uint64_t times[MOST], before[MOST];
static size_t known;

static void translated(plugin_id id, struct qemu_plugin_tb *given) {
    (void)id;
    size_t length = qemu_plugin_tb_n_insns(given);
    struct block *block = calloc(1, sizeof *block + length * sizeof *block->words);
    if (block == NULL || known == MOST) {
        fputs("edgepress: too many blocks to count\n", stderr);
        abort();
    }
    block->length = length;
    for (size_t position = 0; position < length; position++)
        block->words[position] = word_of(given, position);
    qemu_plugin_register_vcpu_tb_exec_inline(given, ADD, &times[known], 1);
    blocks[known++] = block;
}

static void begin(void) { memcpy(before, times, known * sizeof *times); }

static void write_block(FILE *file, size_t position) {
    struct block *block = blocks[position];
    fprintf(file, "block %zu ", position);
    for (size_t place = 0; place < block->length; place++)
        fprintf(file, "%08x", block->words[place]);
    fputc('\n', file);
    block->written = true;
}

static void end(int number) {
    FILE *file = fopen("edgepress-blocks.txt", "a");
    if (file == NULL) {
        perror("edgepress-blocks.txt");
        abort();
    }
    fprintf(file, "mark %d\n", number);
    for (size_t position = 0; position < known; position++) {
        if (times[position] == before[position])
            continue;
        if (!blocks[position]->written)
            write_block(file, position);
        fprintf(file, "%zu %llu\n", position, (unsigned long long)(times[position] - before[position]));
    }
    fclose(file);
}
