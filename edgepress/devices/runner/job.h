/* job.h: what the host asks for. */
#ifndef EDGERUN_JOB_H
#define EDGERUN_JOB_H
#include <sched.h>
#include <stdint.h>

#include "common.h"

typedef struct {
    const char *path, *feeds;
    int group;
} Entry;

/* What agent.py calls by the same names; its constants come with the job, so that they are written in one place. */
static struct {
    char *library, *task, *to, *cpus;
    int threads, reference, min_rounds, rounds, warmup, runs;
    int min_runs, max_runs, most_runs, fewest_rounds, fewest_openings, fewest_group_rounds, canary_visits;
    int jitter, mark;
    double seconds, overtime, visit_ms, slow_ms, alike, max_temp_c, cooling_s, cooling_limit_s;
    uint64_t random;
    size_t count;
    Entry *entries;
} job = {.threads = 1, .max_temp_c = -1};

#define TEXT(name) {#name, 't', &job.name}
#define WHOLE(name) {#name, 'i', &job.name}
#define DECIMAL(name) {#name, 'd', &job.name}
static const struct {
    const char *key;
    char kind;
    void *place;
} KEYS[] = {
    TEXT(library), TEXT(task), TEXT(to), TEXT(cpus),
    WHOLE(threads), WHOLE(reference), WHOLE(min_rounds), WHOLE(rounds), WHOLE(warmup), WHOLE(runs),
    WHOLE(min_runs), WHOLE(max_runs), WHOLE(most_runs), WHOLE(fewest_rounds), WHOLE(fewest_openings),
    WHOLE(fewest_group_rounds), WHOLE(canary_visits), WHOLE(jitter), WHOLE(mark),
    DECIMAL(seconds), DECIMAL(overtime), DECIMAL(visit_ms), DECIMAL(slow_ms), DECIMAL(alike), DECIMAL(max_temp_c), DECIMAL(cooling_s),
    DECIMAL(cooling_limit_s),
};

static void read_setting(const char *key, char *value) {
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        if (strcmp(key, KEYS[i].key)) continue;
        if (KEYS[i].kind == 't') *(char **)KEYS[i].place = value;
        if (KEYS[i].kind == 'i') *(int *)KEYS[i].place = atoi(value);
        if (KEYS[i].kind == 'd') *(double *)KEYS[i].place = atof(value);
        return;
    }
    fail(BAD_JOB, "This edgerun knows no %s: build the one of this version of edgepress.", key);
}

static void read_job(FILE *file) {
    char line[4096], *feeds = NULL;
    int group = 0;
    while (fgets(line, sizeof line, file)) {
        size_t length = strcspn(line, "\n");
        if (!line[length]) fail(BAD_JOB, "A line of the job is cut off.");
        line[length] = 0;
        char *space = strchr(line, ' '), *value = copied(space ? space + 1 : "");
        if (space) *space = 0;
        if (!strcmp(line, "feeds")) feeds = value;
        else if (!strcmp(line, "group")) group++;
        else if (!strcmp(line, "seed")) job.random = strtoull(value, NULL, 10);
        else if (!strcmp(line, "model")) {
            job.entries = room(job.entries, (job.count + 1) * sizeof *job.entries);
            job.entries[job.count++] = (Entry){value, feeds, group};
        } else read_setting(line, value);
    }
    if (!job.library || !job.task) fail(BAD_JOB, "A job needs a library and a task.");
    job.random = job.random * 2 + 0x9E3779B97F4A7C15u; /* xorshift never leaves 0: never 0 */
    job.random |= 1;
}

/* xorshift64* (Vigna, An experimental exploration of Marsaglia's xorshift generators, scrambled, 2016). */
static size_t below(size_t bound) {
    job.random ^= job.random >> 12;
    job.random ^= job.random << 25;
    job.random ^= job.random >> 27;
    return (size_t)((job.random * 0x2545F4914F6CDD1Du >> 33) % bound);
}

/* Fisher and Yates. */
static void shuffle(size_t *order, size_t count) {
    for (size_t i = count; i > 1; i--) {
        size_t other = below(i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

static void stay_on(const char *cpus) {
    cpu_set_t set, found;
    int known = 1;
    CPU_ZERO(&found);
    CPU_ZERO(&set);
    for (const char *at = cpus; *at; at += strcspn(at, ","), at += *at == ',')
        if (atoi(at) < CPU_SETSIZE) CPU_SET(atoi(at), &set);
        else known = 0;
    /* The system is content if one of them is there. */
    if (!known || sched_setaffinity(0, sizeof set, &set) || sched_getaffinity(0, sizeof found, &found) ||
        !CPU_EQUAL(&set, &found))
        fail(BAD_JOB, "This device keeps no program on the processors %s: name others.", cpus);
}

#endif
