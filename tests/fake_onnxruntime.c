/* A stand-in for onnxruntime's library: answers nothing and writes to the file `log` what it is asked for. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { MOST_SESSIONS = 10000, PLACES = 131 };
typedef void (*Function)(void);
static char paths[MOST_SESSIONS][64];
static int sessions, next_sample, samples[MOST_SESSIONS];

static void note(const char *what, const char *which, int number) {
    FILE *file = fopen("log", "a");
    fprintf(file, "%s %s %d\n", what, which, number);
    fclose(file);
}

static void *create(void **out) {
    *out = &sessions;
    return NULL;
}
static void *create_env(int level, const char *name, void **out) { return (void)level, (void)name, create(out); }
static void *create_memory(int type, int kind, void **out) { return (void)type, (void)kind, create(out); }
static void *set(void *options, int value) { return (void)options, (void)value, NULL; }
static void *set_threads(void *options, int value) { return (void)options, note("threads", "", value), NULL; }
static void *set_level(void *options, int value) { return (void)options, note("level", "", value), NULL; }
static void *set_entry(void *options, const char *key, const char *value) {
    return (void)options, note("entry", key, value[0] - '0'), NULL;
}
static void *create_session(void *env, const char *path, void *options, void **out) {
    (void)env, (void)options;
    snprintf(paths[sessions], sizeof paths[0], "%s", path);
    note("open", path, sessions);
    *out = paths[sessions++ % MOST_SESSIONS];
    return NULL;
}
static void *count_outputs(void *session, size_t *out) { return (void)session, *out = 0, NULL; }
static void *create_tensor(void *info, void *data, size_t bytes, void *shape, size_t rank, int type, void **out) {
    (void)info, (void)data, (void)bytes, (void)shape, (void)rank, (void)type;
    samples[next_sample] = next_sample;
    *out = &samples[next_sample++];
    return NULL;
}
static void *run(void *session, void *options, void *names, int **inputs) {
    return (void)options, (void)names, note("run", session, inputs[0][0]), NULL;
}
static void release(void *thing) { (void)thing; }
static void release_session(char *session) { note("close", session, (int)((session - paths[0]) / 64)); }

static Function table[PLACES];
static const Function *api(uint32_t version) {
    static const struct {
        int place;
        Function function;
    } rows[] = {
        {3, (Function)create_env},     {7, (Function)create_session}, {9, (Function)run},
        {10, (Function)create},        {22, (Function)set},           {23, (Function)set_level},
        {24, (Function)set_threads},   {25, (Function)set},           {31, (Function)count_outputs},
        {49, (Function)create_tensor}, {69, (Function)create_memory}, {78, (Function)create},
        {95, (Function)release_session}, {96, (Function)release},     {100, (Function)release},
        {130, (Function)set_entry},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) table[rows[i].place] = rows[i].function;
    return version <= 4 ? table : NULL;
}
static const char *version_string(void) { return "0.fake"; }

const void *OrtGetApiBase(void);
const void *OrtGetApiBase(void) {
    static const struct {
        const Function *(*get)(uint32_t);
        const char *(*version)(void);
    } base = {api, version_string};
    return &base;
}
