/* What both plugins share: the part of qemu's plugin interface they use, and the marks that bound a run.
 *
 * The interface is that of version 1 (qemu 4.2 to 8.2), declared here after qemu's documentation, as packages of
 * qemu-user bring no header. Counters are added to without locks, inline in the translated code: one thread only. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum operation { ADD };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum operation, void *counter, uint64_t step);
void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

EXPORTED int qemu_plugin_version = 1;

/* A program marks a run by closing files that are not open: MARK + 99 begins one, MARK + 0 to 98 end it. */
enum { CLOSE = 57, MARK = 100000, BEGIN = 99 };

static void begin(void);
static void end(int number);
static void translated(plugin_id id, struct qemu_plugin_tb *block);

static uint32_t word_of(const struct qemu_plugin_tb *block, size_t position) {
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, position)), sizeof word);
    return word;
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t first, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)cpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    int32_t file = (int32_t)first - MARK;
    if (number != CLOSE || file < 0 || file > BEGIN)
        return;
    if (file == BEGIN)
        begin();
    else
        end(file);
}

EXPORTED int qemu_plugin_install(plugin_id id, const void *info, int count, char **words) {
    (void)info, (void)count, (void)words;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
