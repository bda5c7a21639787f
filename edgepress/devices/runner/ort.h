/* ort.h: the part of onnxruntime's C interface that edgerun uses, and loading the library.
 *
 * The interface is a table of function pointers that only ever grows at its end (onnxruntime's own build fails
 * otherwise); the places below are fixed since API version 4, onnxruntime 1.4. So nothing of onnxruntime is needed to
 * build, and one program does for every library since. A test compares the places with onnxruntime's header where there
 * is one. Enumerations are passed as int.
 */
#ifndef EDGERUN_ORT_H
#define EDGERUN_ORT_H
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#include "common.h"

enum { API_VERSION = 4, LOG_FATAL = 4, ALL_OPTIMIZATIONS = 99, ARENA = 1, DEFAULT_MEMORY = 0 };
typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtShape;
typedef void (*Function)(void);
typedef struct {
    const Function *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

#define FUNCTIONS(X)                                                                                              \
    X(2, const char *, GetErrorMessage, (const OrtStatus *))                                                      \
    X(3, OrtStatus *, CreateEnv, (int, const char *, OrtEnv **))                                                  \
    X(7, OrtStatus *, CreateSession, (const OrtEnv *, const char *, const OrtSessionOptions *, OrtSession **))    \
    X(9, OrtStatus *, Run,                                                                                        \
      (OrtSession *, const OrtRunOptions *, const char *const *, const OrtValue *const *, size_t,                 \
       const char *const *, size_t, OrtValue **))                                                                 \
    X(10, OrtStatus *, CreateSessionOptions, (OrtSessionOptions **))                                              \
    X(11, OrtStatus *, SetOptimizedModelFilePath, (OrtSessionOptions *, const char *))                            \
    X(14, OrtStatus *, EnableProfiling, (OrtSessionOptions *, const char *))                                      \
    X(22, OrtStatus *, SetSessionLogSeverityLevel, (OrtSessionOptions *, int))                                    \
    X(23, OrtStatus *, SetSessionGraphOptimizationLevel, (OrtSessionOptions *, int))                              \
    X(24, OrtStatus *, SetIntraOpNumThreads, (OrtSessionOptions *, int))                                          \
    X(25, OrtStatus *, SetInterOpNumThreads, (OrtSessionOptions *, int))                                          \
    X(31, OrtStatus *, SessionGetOutputCount, (const OrtSession *, size_t *))                                     \
    X(37, OrtStatus *, SessionGetOutputName, (const OrtSession *, size_t, OrtAllocator *, char **))               \
    X(49, OrtStatus *, CreateTensorWithDataAsOrtValue,                                                            \
      (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, int, OrtValue **))                         \
    X(50, OrtStatus *, IsTensor, (const OrtValue *, int *))                                                       \
    X(51, OrtStatus *, GetTensorMutableData, (OrtValue *, void **))                                               \
    X(60, OrtStatus *, GetTensorElementType, (const OrtShape *, int *))                                           \
    X(61, OrtStatus *, GetDimensionsCount, (const OrtShape *, size_t *))                                          \
    X(62, OrtStatus *, GetDimensions, (const OrtShape *, int64_t *, size_t))                                      \
    X(65, OrtStatus *, GetTensorTypeAndShape, (const OrtValue *, OrtShape **))                                    \
    X(69, OrtStatus *, CreateCpuMemoryInfo, (int, int, OrtMemoryInfo **))                                         \
    X(76, OrtStatus *, AllocatorFree, (OrtAllocator *, void *))                                                   \
    X(78, OrtStatus *, GetAllocatorWithDefaultOptions, (OrtAllocator **))                                         \
    X(95, void, ReleaseSession, (OrtSession *))                                                                   \
    X(96, void, ReleaseValue, (OrtValue *))                                                                       \
    X(99, void, ReleaseTensorTypeAndShapeInfo, (OrtShape *))                                                      \
    X(100, void, ReleaseSessionOptions, (OrtSessionOptions *))                                                    \
    X(110, OrtStatus *, SessionEndProfiling, (OrtSession *, OrtAllocator *, char **))                             \
    X(130, OrtStatus *, AddSessionConfigEntry, (OrtSessionOptions *, const char *, const char *))

#define DECLARED(place, result, name, arguments) static result(*name) arguments;
#define LOOKED_UP(place, result, name, arguments) name = (result(*) arguments)table[place];
FUNCTIONS(DECLARED)

static const char *version = "";
static OrtEnv *environment;
static OrtMemoryInfo *memory_info;
static OrtAllocator *allocator;

static void check(OrtStatus *status, const char *cannot) {
    if (!status) return;
    const char *text = GetErrorMessage(status);
    fail(MODEL_FAILED, "onnxruntime %s cannot %s: %.*s", version, cannot, (int)strcspn(text, "\n"), text);
}

static void open_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(LACKS, "The library cannot be loaded (%s): name another by library=PATH.", dlerror());
    const OrtApiBase *(*get)(void);
    void *found = dlsym(library, "OrtGetApiBase");
    memcpy(&get, &found, sizeof get); /* ISO C has no cast for it */
    if (!found) fail(LACKS, "The library is not onnxruntime's (no OrtGetApiBase): name another by library=PATH.");
    version = copied(get()->GetVersionString());
    const Function *table = get()->GetApi(API_VERSION);
    if (!table) fail(LACKS, "onnxruntime %s has no API of version %d: use a newer one.", version, API_VERSION);
    FUNCTIONS(LOOKED_UP)
    check(CreateEnv(LOG_FATAL, "edgerun", &environment), "start");
    check(CreateCpuMemoryInfo(ARENA, DEFAULT_MEMORY, &memory_info), "start");
    check(GetAllocatorWithDefaultOptions(&allocator), "start");
}

#endif
