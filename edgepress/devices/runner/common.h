/* common.h: errors, memory, files, and writing the report. */
#ifndef EDGERUN_COMMON_H
#define EDGERUN_COMMON_H
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MODEL_FAILED = 3, LACKS = 4, BAD_JOB = 5 };

static void fail(int code, const char *form, ...) {
    va_list values;
    va_start(values, form);
    vfprintf(stderr, form, values);
    va_end(values);
    fputc('\n', stderr);
    exit(code);
}

static void *room(void *old, size_t bytes) {
    void *found = realloc(old, bytes ? bytes : 1);
    if (!found) fail(BAD_JOB, "This device has no memory for another %zu bytes.", bytes);
    return found;
}

static char *copied(const char *text) { return strcpy(room(NULL, strlen(text) + 1), text); }

/* The whole file with a zero behind it, or NULL; files of /proc do not say how long they are. */
static char *content(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    size_t used = 0, space = 1 << 16, got;
    char *text = room(NULL, space);
    while ((got = fread(text + used, 1, space - used - 1, file)) > 0)
        if ((used += got) + 1 == space) text = room(text, space *= 2);
    fclose(file);
    text[used] = 0;
    if (length) *length = used;
    return text;
}

/* The first line of a file without blanks at its ends, or NULL if there is nothing. */
static char *line_of(const char *path) {
    char *text = content(path, NULL);
    if (!text) return NULL;
    text[strcspn(text, "\n")] = 0;
    size_t length = strlen(text);
    while (length && text[length - 1] == ' ') text[--length] = 0;
    if (length) return text;
    free(text);
    return NULL;
}

static void put_text(const char *text) {
    if (!text) {
        fputs("null", stdout);
        return;
    }
    putchar('"');
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at < 0x20) printf("\\u%04x", *at);
        else if (*at == '"' || *at == '\\') printf("\\%c", *at);
        else putchar(*at);
    }
    putchar('"');
}

static void put_times(const double *values, size_t count) {
    putchar('[');
    for (size_t i = 0; i < count; i++) printf(i ? ",%.6f" : "%.6f", values[i]);
    putchar(']');
}

static void put_number(const char *key, double value, int known) {
    printf(known ? ",\"%s\":%.10g" : ",\"%s\":null", key, value);
}

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

#endif
