/* edgerun: runs ONNX models on a device without Python. Needs libc, libdl and onnxruntime's shared library.
 *
 *     edgerun < job > report            edgerun job > report
 *
 * It does the tasks of edgepress/devices/agent.py, which says what they mean. A job is text, `key value` a line; `feeds`
 * holds for the models that follow, `group` parts models that take turns from the next ones. A report is one JSON
 * object; models are numbered, the host knows their names. Samples and outputs lie in files of tensors (tensors.py
 * beside this file). An error is one line on stderr, with exit code 3 (the model), 4 (onnxruntime's library) or 5 (the
 * job). One file to compile: cc -std=c99 -O2 edgerun.c -o edgerun -ldl
 */
#define _GNU_SOURCE /* sched_setaffinity */
#include <errno.h>
#include <unistd.h>

#include "common.h"
#include "job.h"
#include "machine.h"
#include "models.h"
#include "ort.h"
#include "race.h"
#include "tensors.h"

static void best_of_group(const Entry *entries, size_t count) {
    Model *models = room(NULL, count * sizeof *models);
    Sample *samples = room(NULL, count * sizeof *samples);
    double *best = room(NULL, count * sizeof *best);
    size_t *order = room(NULL, count * sizeof *order);
    for (size_t i = 0; i < count; i++) {
        models[i] = opened(entries[i].path, job.threads);
        samples[i] = read_feeds(entries[i].feeds).samples[0];
        order[i] = i;
    }
    double begin = now_ms();
    for (size_t i = 0; i < count; i++) run(&models[i], &samples[i]); /* the first run allocates */
    for (size_t i = 0; i < count; i++) {
        best[i] = *timed(&models[i], &samples[i], 1);
        models[i].runs = between(job.visit_ms / (best[i] > 1e-6 ? best[i] : 1e-6), 1, job.most_runs);
    }
    for (int done = 0; done < job.rounds; done++) {
        if (done >= job.fewest_group_rounds && now_ms() - begin > job.seconds * 1e3) break;
        shuffle(order, count);
        for (size_t i = 0; i < count; i++) {
            Model *model = &models[order[i]];
            double found = least(timed(model, &samples[order[i]], model->runs), model->runs);
            if (found < best[order[i]]) best[order[i]] = found;
        }
    }
    put_times(best, count);
    for (size_t i = 0; i < count; i++) ReleaseSession(models[i].session);
}

static void best(void) {
    fputs(",\"best_ms\":[", stdout);
    for (size_t first = 0, next; first < job.count; first = next) {
        for (next = first; next < job.count && job.entries[next].group == job.entries[first].group;) next++;
        if (first) putchar(',');
        best_of_group(job.entries + first, next - first);
    }
    putchar(']');
}

static void memory(void) {
    Feeds feeds = read_feeds(job.entries[0].feeds);
    long start = peak_kb();
    Model model = {.path = job.entries[0].path};
    open_racer(&model, feeds.samples);
    printf(",\"load_ms\":%.6f,\"first_ms\":%.6f", model.load_ms[0], model.first_ms[0]);
    put_number("start_kb", (double)start, start >= 0);
    put_number("peak_kb", (double)peak_kb(), start >= 0);
}

static void outputs(void) {
    Model model = opened(job.entries[0].path, job.threads);
    Feeds feeds = read_feeds(job.entries[0].feeds);
    begin_file(job.to, feeds.count);
    for (uint32_t i = 0; i < feeds.count; i++) {
        answer(&model, &feeds.samples[i]);
        write_number(model.outputs, 4);
        for (size_t k = 0; k < model.outputs; k++) write_tensor(k, model.results[k]);
        release_results(&model);
    }
    end_file();
    fputs(",\"outputs\":[", stdout);
    for (size_t k = 0; k < model.outputs; k++) {
        if (k) putchar(',');
        put_text(model.names[k]);
    }
    putchar(']');
}

/* The graphs that onnxruntime really runs, as files that the host reads: `to` and a number. */
static void operators(void) {
    for (size_t i = 0; i < job.count; i++) {
        char place[256];
        snprintf(place, sizeof place, "%s%zu", job.to ? job.to : "optimized-", i);
        Model model = {.path = job.entries[i].path};
        open_session(&model, job.threads, place, NULL);
        ReleaseSession(model.session);
    }
}

/* What onnxruntime's profiler writes, as files that the host reads: `to` and a number. */
static void profile(void) {
    fputs(",\"runs\":[", stdout);
    for (size_t i = 0; i < job.count; i++) {
        char place[256], *made;
        snprintf(place, sizeof place, "%s%zu", job.to ? job.to : "profile-", i);
        Sample sample = read_feeds(job.entries[i].feeds).samples[0];
        Model model = {.path = job.entries[i].path};
        open_session(&model, job.threads, NULL, place);
        int done = 0;
        double begin = now_ms();
        while (done <= job.warmup || (done < job.warmup + job.runs && now_ms() - begin < job.seconds * 1e3)) {
            run(&model, &sample);
            done++;
        }
        check(SessionEndProfiling(model.session, allocator, &made), "write its profile");
        if (rename(made, place)) fail(BAD_JOB, "%s cannot be written (%s).", place, strerror(errno));
        printf(i ? ",%d" : "%d", done - job.warmup);
        ReleaseSession(model.session);
    }
    putchar(']');
}

/* Runs of each, every one between two marks: a file that is not open is closed, which an emulator sees. */
static void count(void) {
    enum { BEGIN = 99 };
    for (size_t i = 0; i < job.count; i++) {
        Sample sample = read_feeds(job.entries[i].feeds).samples[0];
        Model model = opened(job.entries[i].path, 1);
        for (int k = 0; k < job.warmup; k++) run(&model, &sample);
        for (int k = 0; k < job.runs; k++) {
            close(job.mark + BEGIN);
            run(&model, &sample);
            close(job.mark + (int)(i % BEGIN));
        }
        ReleaseSession(model.session);
    }
}

static void identify(void) {}

static const struct {
    const char *name;
    void (*perform)(void);
    int feeds; /* it needs models: 1 with feeds, -1 without, 0 none */
} TASKS[] = {{"identify", identify, 0}, {"race", race, 1},           {"best", best, 1},       {"memory", memory, 1},
             {"outputs", outputs, 1},   {"operators", operators, -1}, {"profile", profile, 1}, {"count", count, 1}};

static void check_models(int feeds) {
    int lacks = feeds && !job.count;
    for (size_t i = 0; i < job.count; i++) lacks |= feeds > 0 && !job.entries[i].feeds;
    if (lacks) fail(BAD_JOB, "A job needs feeds, then models.");
}

int main(int words, char **word) {
    FILE *file = words > 1 ? fopen(word[1], "r") : stdin;
    if (!file) fail(BAD_JOB, "%s cannot be read (%s).", word[1], strerror(errno));
    read_job(file);
    if (job.cpus) stay_on(job.cpus);
    open_library(job.library);
    for (size_t i = 0; i < sizeof TASKS / sizeof *TASKS; i++) {
        if (strcmp(job.task, TASKS[i].name)) continue;
        check_models(TASKS[i].feeds);
        fputs("{\"format\":\"edgerun/1\",\"machine\":", stdout);
        put_machine();
        put_health("before");
        TASKS[i].perform();
        put_health("after");
        puts("}");
        if (fflush(stdout) || ferror(stdout)) fail(BAD_JOB, "The report cannot be written: is the disk full?");
        return 0;
    }
    fail(BAD_JOB, "There is no task %s: build the edgerun of this version of edgepress.", job.task);
}
