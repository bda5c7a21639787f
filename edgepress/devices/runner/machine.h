/* machine.h: what the device is, and what may disturb a measurement there. Reads /proc and /sys of Linux. */
#ifndef EDGERUN_MACHINE_H
#define EDGERUN_MACHINE_H
#include <sched.h>
#include <sys/utsname.h>

#include "common.h"
#include "ort.h"

enum { MOST_ZONES = 100 };

static int first_cpu(int *count) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set)) CPU_SET(0, &set);
    if (count) *count = CPU_COUNT(&set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set)) return cpu;
    return 0;
}

/* The value of a row of /proc/cpuinfo in the block of a processor (or behind the last block), or NULL. */
static char *cpu_row(const char *key, int cpu) {
    char *text = content("/proc/cpuinfo", NULL), *found = NULL, *rest = NULL;
    int block = -1;
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strchr(line, ':');
        if (!colon) continue;
        size_t width = strcspn(line, "\t:");
        while (width && line[width - 1] == ' ') width--;
        if (width == 9 && !strncmp(line, "processor", 9)) block = atoi(colon + 1);
        int here = block == cpu || !strcmp(key, "Hardware");
        if (here && !found && width == strlen(key) && !strncmp(line, key, width))
            found = copied(colon + 1 + strspn(colon + 1, " "));
    }
    free(text);
    return found;
}

static void put_machine(void) {
    struct utsname system;
    int cores, cpu = first_cpu(&cores);
    uname(&system);
    char *names[] = {cpu_row("model name", cpu), line_of("/proc/device-tree/model"), cpu_row("Hardware", cpu)};
    char *flags = cpu_row("flags", cpu), *part = cpu_row("CPU part", cpu), *rest = NULL;
    if (!flags) flags = cpu_row("Features", cpu);
    const char *name = system.machine;
    for (int i = 2; i >= 0; i--)
        if (names[i]) name = names[i];
    fputs("{\"cpu\":", stdout);
    put_text(name);
    fputs(",\"part\":", stdout);
    put_text(part ? part : "");
    printf(",\"cores\":%d,\"machine\":\"%s\",\"onnxruntime\":\"%s\"", cores, system.machine, version);
    printf(",\"os\":\"%s %s %s\",\"flags\":[", system.sysname, system.release, system.machine);
    int some = 0;
    for (char *word = flags ? strtok_r(flags, " ", &rest) : NULL; word; word = strtok_r(NULL, " ", &rest)) {
        if (some++) putchar(',');
        put_text(word);
    }
    fputs("]}", stdout);
}

static double hottest(int *known) {
    double most = 0;
    *known = 0;
    for (int zone = 0; zone < MOST_ZONES; zone++) {
        char path[80];
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
        char *text = line_of(path);
        if (text && (!*known || atof(text) / 1000 > most)) most = atof(text) / 1000, *known = 1;
        free(text);
    }
    return most;
}

static void put_health(const char *key) {
    static const char *names[] = {"scaling_governor", "scaling_cur_freq", "cpuinfo_max_freq"};
    char *found[3], path[120];
    int cpu = first_cpu(NULL), hot;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/%s", cpu, names[i]);
        found[i] = line_of(path);
    }
    char *clock = cpu_row("cpu MHz", cpu), *throttled = line_of("/sys/devices/platform/soc/soc:firmware/get_throttled");
    char *load = line_of("/proc/loadavg");
    double temperature = hottest(&hot);
    printf(",\"%s\":{\"governor\":", key);
    put_text(found[0]);
    put_number("frequency_mhz", found[1] ? atof(found[1]) / 1000 : clock ? atof(clock) : 0, found[1] || clock);
    put_number("max_mhz", found[2] ? atof(found[2]) / 1000 : 0, found[2] != NULL);
    put_number("temperature_c", temperature, hot);
    printf(",\"throttled\":%s", !throttled ? "null" : strtol(throttled, NULL, 16) & 0xF ? "true" : "false");
    put_number("load_1m", load ? atof(load) : 0, load != NULL);
    putchar('}');
    for (int i = 0; i < 3; i++) free(found[i]);
    free(clock), free(throttled), free(load);
}

static long peak_kb(void) {
    char *text = content("/proc/self/status", NULL), *row = text ? strstr(text, "VmHWM:") : NULL;
    long found = row ? atol(row + 6) : -1;
    free(text);
    return found;
}

#endif
