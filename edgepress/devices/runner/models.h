/* models.h: sessions, and runs one by one. */
#ifndef EDGERUN_MODELS_H
#define EDGERUN_MODELS_H
#include "common.h"
#include "job.h"
#include "ort.h"
#include "tensors.h"

/* A model, its session while one is open, and what was timed so far: runs of visits, and of every opening. */
typedef struct {
    const char *path;
    OrtSession *session;
    size_t outputs;
    char **names;
    OrtValue **results;
    double *times, *load_ms, *first_ms, run_ms;
    size_t taken, space, openings;
    int runs;
} Model;

static void release_results(Model *model) {
    for (size_t i = 0; i < model->outputs; i++)
        if (model->results[i]) ReleaseValue(model->results[i]);
}

/* One run; its results are kept until they are released. */
static void answer(Model *model, const Sample *sample) {
    memset(model->results, 0, model->outputs * sizeof *model->results);
    check(Run(model->session, NULL, (const char *const *)sample->names, (const OrtValue *const *)sample->values,
              sample->count, (const char *const *)model->names, model->outputs, model->results),
          "run this model on these inputs");
}

static void run(Model *model, const Sample *sample) {
    answer(model, sample);
    release_results(model);
}

/* Opens a session at the level that is shipped for; threads do not spin, so that models leave each other alone. */
static void open_session(Model *model, int threads, const char *optimized_to, const char *profile_to) {
    const char *cannot = "load this model";
    OrtSessionOptions *options;
    check(CreateSessionOptions(&options), cannot);
    check(SetIntraOpNumThreads(options, threads), cannot);
    check(SetInterOpNumThreads(options, 1), cannot);
    check(SetSessionLogSeverityLevel(options, LOG_FATAL), cannot);
    check(SetSessionGraphOptimizationLevel(options, ALL_OPTIMIZATIONS), cannot);
    check(AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"), cannot);
    if (optimized_to) check(SetOptimizedModelFilePath(options, optimized_to), cannot);
    if (profile_to) check(EnableProfiling(options, profile_to), cannot);
    check(CreateSession(environment, model->path, options, &model->session), cannot);
    ReleaseSessionOptions(options);
    if (model->names) return;
    check(SessionGetOutputCount(model->session, &model->outputs), cannot);
    model->names = room(NULL, model->outputs * sizeof *model->names);
    model->results = room(NULL, model->outputs * sizeof *model->results);
    for (size_t i = 0; i < model->outputs; i++)
        check(SessionGetOutputName(model->session, i, allocator, &model->names[i]), cannot);
}

static Model opened(const char *path, int threads) {
    Model model = {.path = path};
    open_session(&model, threads, NULL, NULL);
    return model;
}

/* Runs that are timed one by one; they are not kept unless `taken` moves on. */
static double *timed(Model *model, const Sample *sample, int runs) {
    if (model->taken + (size_t)runs > model->space)
        model->times = room(model->times, (model->space = 2 * model->space + (size_t)runs) * sizeof *model->times);
    double *found = model->times + model->taken, before = now_ms();
    for (int i = 0; i < runs; i++) {
        run(model, sample);
        double after = now_ms();
        found[i] = after - before;
        before = after;
    }
    return found;
}

static double least(const double *values, int count) {
    double found = values[0];
    for (int i = 1; i < count; i++)
        if (values[i] < found) found = values[i];
    return found;
}

static int between(double value, int low, int high) { return value < low ? low : value > high ? high : (int)value; }

#endif
