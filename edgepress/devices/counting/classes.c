/* Plugin of qemu that counts the instructions of runs by class (classes.py).
 *
 * At the end of a run one line goes to stderr: edgepress-counts {"mark": number, "<class>": instructions, ...} */
#include "plugin.h"

#include "classes.h"

static uint64_t counted[CLASSES], before[CLASSES];

static int class_of(uint32_t word) {
    int row = 0;
    while ((word & ROWS[row].mask) != ROWS[row].value)
        row++; /* the last row fits all */
    return ROWS[row].class;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    uint64_t found[CLASSES] = {0};
    for (size_t position = 0; position < qemu_plugin_tb_n_insns(block); position++)
        found[class_of(word_of(block, position))]++;
    for (int class = 0; class < CLASSES; class++)
        if (found[class])
            qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &counted[class], found[class]);
}

static void begin(void) { memcpy(before, counted, sizeof before); }

static void end(int number) {
    char line[64 * (CLASSES + 1)];
    int length = sprintf(line, "edgepress-counts {\"mark\": %d", number);
    for (int class = 0; class < CLASSES; class++)
        length += sprintf(line + length, ", \"%s\": %llu", NAMES[class],
                          (unsigned long long)(counted[class] - before[class]));
    sprintf(line + length, "}\n");
    fputs(line, stderr);
    fflush(stderr);
}
