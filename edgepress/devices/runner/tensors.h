/* tensors.h: files of samples and outputs; tensors.py beside this file describes them. */
#ifndef EDGERUN_TENSORS_H
#define EDGERUN_TENSORS_H
#include <errno.h>
#include <stdint.h>

#include "common.h"
#include "ort.h"

enum { MOST_RANK = 64 };

typedef struct {
    size_t count;
    char **names;
    OrtValue **values;
} Sample;

typedef struct {
    uint32_t count;
    Sample *samples;
} Feeds;

typedef struct {
    const char *path, *at, *end;
} Reader;

static const char *taken(Reader *reader, uint64_t length) {
    if (length > (uint64_t)(reader->end - reader->at))
        fail(BAD_JOB, "%s is no whole file of samples: is the disk of the device full?", reader->path);
    reader->at += length;
    return reader->at - length;
}

static uint64_t number(Reader *reader, size_t bytes) {
    uint64_t found = 0;
    memcpy(&found, taken(reader, bytes), bytes); /* little-endian, as every device that this is built for */
    return found;
}

static OrtValue *read_tensor(Reader *reader, char **name) {
    uint64_t length = number(reader, 4);
    const char *text = taken(reader, length);
    *name = room(NULL, length + 1);
    memcpy(*name, text, length);
    (*name)[length] = 0;
    int type = (int)number(reader, 4);
    uint32_t rank = (uint32_t)number(reader, 4);
    int64_t shape[MOST_RANK];
    if (rank > MOST_RANK) fail(BAD_JOB, "An input has more than %d dimensions.", MOST_RANK);
    for (uint32_t i = 0; i < rank; i++) shape[i] = (int64_t)number(reader, 8);
    uint64_t bytes = number(reader, 8);
    const char *given = taken(reader, bytes);
    void *values;
    if (posix_memalign(&values, 64, bytes ? bytes : 64)) fail(BAD_JOB, "This device has no memory for the samples.");
    memcpy(values, given, bytes);
    OrtValue *found = NULL;
    check(CreateTensorWithDataAsOrtValue(memory_info, values, bytes, shape, rank, type, &found), "take a sample");
    return found;
}

static Feeds read_feeds(const char *path) {
    size_t length = 0;
    char *text = content(path, &length);
    if (!text) fail(BAD_JOB, "%s is missing: the samples were not sent.", path);
    Reader reader = {path, text, text + length};
    if (memcmp(taken(&reader, 8), "EDGETEN1", 8)) fail(BAD_JOB, "%s is no file of samples.", path);
    Feeds feeds = {(uint32_t)number(&reader, 4), NULL};
    if (!feeds.count) fail(BAD_JOB, "%s holds no sample.", path);
    for (uint32_t i = 0; i < feeds.count; i++) {
        uint32_t count = (uint32_t)number(&reader, 4);
        feeds.samples = room(feeds.samples, (i + 1) * sizeof *feeds.samples);
        Sample *sample = &feeds.samples[i];
        *sample = (Sample){count, NULL, NULL};
        for (uint32_t k = 0; k < count; k++) {
            sample->names = room(sample->names, (k + 1) * sizeof *sample->names);
            sample->values = room(sample->values, (k + 1) * sizeof *sample->values);
            sample->values[k] = read_tensor(&reader, &sample->names[k]);
        }
    }
    free(text);
    return feeds;
}

/* Written file by file: where to, and its path for errors. */
static struct {
    FILE *file;
    const char *path;
} written;

static void write_bytes(const void *values, size_t bytes) {
    if (bytes && fwrite(values, 1, bytes, written.file) != bytes)
        fail(BAD_JOB, "%s cannot be written (%s): make room on the device.", written.path, strerror(errno));
}

static void write_number(uint64_t value, size_t bytes) { write_bytes(&value, bytes); }

static void begin_file(const char *path, uint32_t samples) {
    written.path = path ? path : "The file of outputs";
    written.file = path ? fopen(path, "wb") : NULL;
    if (!written.file) fail(BAD_JOB, "%s cannot be written (%s).", written.path, path ? strerror(errno) : "no name");
    write_bytes("EDGETEN1", 8);
    write_number(samples, 4);
}

static void end_file(void) {
    if (fclose(written.file))
        fail(BAD_JOB, "%s cannot be written (%s): make room on the device.", written.path, strerror(errno));
}

static size_t width_of(int type) {
    static const size_t WIDTHS[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8}; /* by ONNX's number of the type */
    return type > 0 && (size_t)type < sizeof WIDTHS / sizeof *WIDTHS ? WIDTHS[type] : 0;
}

static void write_tensor(size_t position, OrtValue *value) {
    char name[24];
    OrtShape *shape;
    size_t rank, bytes;
    int64_t sizes[MOST_RANK];
    int tensor = 0, type = 0;
    void *values;
    const char *cannot = "hand out its outputs";
    if (value) check(IsTensor(value, &tensor), cannot);
    if (!tensor) fail(MODEL_FAILED, "Output %zu of this model is no tensor: it cannot be compared.", position);
    check(GetTensorTypeAndShape(value, &shape), cannot);
    check(GetTensorElementType(shape, &type), cannot);
    check(GetDimensionsCount(shape, &rank), cannot);
    if (rank > MOST_RANK) fail(MODEL_FAILED, "Output %zu has more than %d dimensions.", position, MOST_RANK);
    check(GetDimensions(shape, sizes, rank), cannot);
    ReleaseTensorTypeAndShapeInfo(shape);
    if (!(bytes = width_of(type))) fail(MODEL_FAILED, "Output %zu is of a type (%d) without numbers.", position, type);
    check(GetTensorMutableData(value, &values), cannot);
    write_number((uint64_t)snprintf(name, sizeof name, "%zu", position), 4);
    write_bytes(name, strlen(name));
    write_number((uint64_t)type, 4);
    write_number(rank, 4);
    for (size_t i = 0; i < rank; i++) {
        write_number((uint64_t)sizes[i], 8);
        bytes *= (size_t)sizes[i];
    }
    write_number(bytes, 8);
    write_bytes(values, bytes);
}

#endif
