/* race.h: models against each other and against a twin of the reference, as take_turns of agent.py does it. */
#ifndef EDGERUN_RACE_H
#define EDGERUN_RACE_H
#include "common.h"
#include "job.h"
#include "machine.h"
#include "models.h"

/* Opens a session of a model in a race, times that and its first run; of the first session also how long a run takes. */
static void open_racer(Model *model, const Sample *sample) {
    size_t bytes = (model->openings + 1) * sizeof(double);
    model->load_ms = room(model->load_ms, bytes), model->first_ms = room(model->first_ms, bytes);
    double start = now_ms();
    open_session(model, job.threads, NULL, NULL);
    double loaded = now_ms();
    run(model, sample);
    double first = now_ms();
    model->load_ms[model->openings] = loaded - start, model->first_ms[model->openings] = first - loaded;
    if (model->openings++) return;
    run(model, sample);
    model->run_ms = least(timed(model, sample, job.min_runs), job.min_runs);
}

/* One warm run, then timed ones, which are kept. */
static void visit(Model *model, const Sample *sample) {
    run(model, sample);
    timed(model, sample, model->runs);
    model->taken += (size_t)model->runs;
}

static int runs_per_visit(double run_ms) {
    double wanted = job.visit_ms / (run_ms > 1e-6 ? run_ms : 1e-6);
    return run_ms >= job.slow_ms ? 1 : between(wanted + 0.999999, job.min_runs, job.max_runs);
}

/* As many runs of a visit for all that are about as fast as the first. */
static void same_effort(Model *models, size_t count) {
    for (size_t i = 0; i < count; i++) {
        double ratio = models[i].run_ms / models[0].run_ms;
        int alike = ratio >= job.alike && ratio <= 1 / job.alike;
        models[i].runs = runs_per_visit(alike ? models[0].run_ms : models[i].run_ms);
    }
}

static int ascending(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

/* The median, the lower one of two; the values are sorted. */
static double middle(double *values, size_t count) {
    qsort(values, count, sizeof *values, ascending);
    return values[(count - 1) / 2];
}

static void put_row(const Model *model) {
    printf("{\"load_ms\":%.6f,\"first_ms\":%.6f,\"visits\":[", middle(model->load_ms, model->openings),
           middle(model->first_ms, model->openings));
    for (size_t at = 0; at < model->taken; at += (size_t)model->runs) {
        if (at) putchar(',');
        put_times(model->times + at, (size_t)model->runs);
    }
    fputs("]}", stdout);
}

/* A fixed piece of work: if it takes longer, the machine has changed, not the models. */
static void put_canary(const char *key) {
    enum { WIDTH = 1 << 16, PASSES = 8 };
    static float values[WIDTH];
    static volatile float seen; /* or the work would be left out */
    double *times = room(NULL, (size_t)job.canary_visits * sizeof *times);
    for (int i = 0; i < WIDTH; i++) values[i] = 1.0f + (float)i / WIDTH;
    for (int visits = 0; visits < job.canary_visits; visits++) {
        double start = now_ms();
        for (int pass = 0; pass < PASSES; pass++) {
            float sum = 0;
            for (int i = 0; i < WIDTH; i++) sum += 1.0f / (values[i] * values[i] + values[i]);
            seen = sum;
        }
        times[visits] = now_ms() - start;
    }
    (void)seen;
    printf("\"%s\":", key);
    put_times(times, (size_t)job.canary_visits);
    free(times);
}

/* Waits while the device is hotter than it may be; how many seconds that took. */
static double cool_down(void) {
    double waited = 0;
    while (job.max_temp_c >= 0) {
        int known;
        double found = hottest(&known);
        if (!known) fail(BAD_JOB, "This machine does not say how hot it is: leave the highest temperature out.");
        if (found <= job.max_temp_c) break;
        if (waited >= job.cooling_limit_s)
            fail(BAD_JOB, "It stays at %g degrees C: cool it, or allow more than %g.", found, job.max_temp_c);
        struct timespec pause = {(time_t)job.cooling_s, 0};
        nanosleep(&pause, NULL);
        waited += job.cooling_s;
    }
    return waited;
}

static int late(double elapsed_s) { return elapsed_s >= job.overtime * (job.seconds > 1 ? job.seconds : 1); }

static int more_rounds(double elapsed_s, int done) {
    int rounds = job.min_rounds;
    if (late(elapsed_s) && rounds > job.fewest_rounds) rounds = job.fewest_rounds;
    return elapsed_s < job.seconds || done < rounds;
}

static int goes_on(double elapsed_s, int done, int openings) {
    return more_rounds(elapsed_s, done) || openings < (late(elapsed_s) ? 1 : job.fewest_openings);
}

/* One opening: all sessions anew, with memory of random size between them, then rounds for as long, or until the time
   that began at `begin` is up; rounds so far. */
static int take_turns(Model *models, size_t count, const Feeds *feeds, int done, double begin) {
    size_t *order = room(NULL, count * sizeof *order);
    char **between_them = room(NULL, count * sizeof *between_them);
    for (size_t i = 0; i < count; i++) order[i] = i;
    double start = now_ms();
    shuffle(order, count);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 1 + below((size_t)job.jitter);
        between_them[i] = memset(room(NULL, bytes), 1, bytes);
        open_racer(&models[order[i]], feeds->samples);
    }
    if (!done) same_effort(models, count);
    double ready = now_ms();
    do {
        shuffle(order, count);
        for (size_t i = 0; i < count; i++) visit(&models[order[i]], &feeds->samples[(uint32_t)done % feeds->count]);
        done++;
    } while (now_ms() - ready < ready - start && more_rounds((now_ms() - begin) / 1e3, done));
    for (size_t i = 0; i < count; i++) ReleaseSession(models[i].session), free(between_them[i]);
    free(order), free(between_them);
    return done;
}

static void race(void) {
    if (job.reference < 0 || (size_t)job.reference >= job.count || job.jitter < 1)
        fail(BAD_JOB, "A race needs a reference among its models.");
    size_t count = job.count + 1, *place = room(NULL, job.count * sizeof *place);
    Feeds feeds = read_feeds(job.entries[0].feeds);
    Model *models = room(NULL, count * sizeof *models), started = {.path = job.entries[job.reference].path};
    place[job.reference] = 0; /* the reference is the first of them, its twin the last */
    for (size_t i = 0, next = 1; i < job.count; i++)
        if (i != (size_t)job.reference) place[i] = next++;
    for (size_t i = 0; i < job.count; i++) models[place[i]] = (Model){.path = job.entries[i].path};
    models[job.count] = started;
    fputs(",\"canary\":{", stdout);
    put_canary("before_ms");
    open_racer(&started, feeds.samples); /* pays for starting onnxruntime */
    ReleaseSession(started.session);
    int done = 0, openings = 0, *rounds = NULL;
    double begin = now_ms(), cooled = 0;
    while (goes_on((now_ms() - begin) / 1e3 - cooled, done, openings)) {
        cooled += cool_down();
        int after = take_turns(models, count, &feeds, done, begin + 1e3 * cooled);
        rounds = room(rounds, (size_t)(openings + 1) * sizeof *rounds);
        rounds[openings++] = after - done;
        done = after;
    }
    putchar(',');
    put_canary("after_ms");
    printf("},\"rounds\":%d,\"openings\":[", done);
    for (int i = 0; i < openings; i++) printf(i ? ",%d" : "%d", rounds[i]);
    fputs("],\"models\":[", stdout);
    for (size_t i = 0; i < job.count; i++) {
        if (i) putchar(',');
        put_row(&models[place[i]]);
    }
    fputs("],\"twin\":", stdout);
    put_row(&models[job.count]);
}

#endif
