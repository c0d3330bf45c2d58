/*
 * For the bench of the meter: has its programs measure a group of cgroup2, or takes them away.
 * `meter_switch GROUP` takes the lines `on`, `off` and `read`, and answers each with `ok`; that to
 * `read` has nanoseconds of CPU time and the number of switches since `on`.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bpf/meter.h"

static struct meter *meter;
static uint32_t slot;

static void switch_on(uint64_t leaf_id)
{
        const struct meter_config config = { .n_slots = 1024,
                                             .n_threads = 1 << 15 }; /* as a runtime has them */
        char why[METER_WHY_BUFFER];

        if (meter) {
                (void)puts("ok");
                return;
        }
        if (meter_new(&config, &meter, why) || why[0])
                (void)printf("error the programs were refused: %s\n", why);
        else if (meter_take_slot(meter, leaf_id, &slot))
                (void)puts("error there is no slot for the group");
        else
                (void)puts("ok");
}

static void switch_off(void)
{
        meter = meter_free(meter);
        (void)puts("ok");
}

static void show(void)
{
        struct meter_reading reading = { 0 };

        if (meter)
                meter_read(meter, slot, &reading);
        (void)printf("ok %llu %llu\n", (unsigned long long)reading.cpu_nsec,
                     (unsigned long long)reading.n_switches);
}

int main(int argc, char *argv[])
{
        struct stat group;
        char line[16];

        if (argc != 2 || stat(argv[1], &group) < 0) {
                (void)puts("error no group");
                return EXIT_FAILURE;
        }
        (void)setvbuf(stdout, NULL, _IOLBF, 0);
        (void)puts("ok");
        while (fgets(line, sizeof(line), stdin)) {
                if (strcmp(line, "on\n") == 0)
                        switch_on(group.st_ino);
                else if (strcmp(line, "off\n") == 0)
                        switch_off();
                else
                        show();
        }
        (void)meter_free(meter);
        return EXIT_SUCCESS;
}
