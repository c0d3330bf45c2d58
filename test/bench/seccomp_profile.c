/*
 * Prints the sandboxes' own allow-list as the `seccomp` part of an OCI configuration, so that the
 * containers that they are measured beside are given as much to do.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>
#include <seccomp.h>

#include "runtime/container/seccomp_list.h"

static bool is_allowed(enum seccomp_verdict verdict)
{
        return verdict != SECCOMP_REFUSE && verdict != SECCOMP_UNKNOWN;
}

static struct json_object *allowed_names(void)
{
        struct json_object *names = json_object_new_array();

        for (size_t i = 0; i < n_seccomp_entries; i++) {
                char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE,
                                                              (int)seccomp_entries[i].number);

                /* Newer than the library: it could not filter it either. */
                if (name && is_allowed(seccomp_entries[i].verdict))
                        json_object_array_add(names, json_object_new_string(name));
                free(name);
        }
        return names;
}

int main(void)
{
        struct json_object *profile = json_object_new_object();
        struct json_object *rule = json_object_new_object();
        struct json_object *rules = json_object_new_array();

        json_object_object_add(rule, "names", allowed_names());
        json_object_object_add(rule, "action", json_object_new_string("SCMP_ACT_ALLOW"));
        json_object_array_add(rules, rule);
        json_object_object_add(profile, "defaultAction", json_object_new_string("SCMP_ACT_ERRNO"));
        json_object_object_add(profile, "syscalls", rules);
        (void)puts(json_object_to_json_string_ext(profile, JSON_C_TO_STRING_PRETTY));
        json_object_put(profile);
        return 0;
}
