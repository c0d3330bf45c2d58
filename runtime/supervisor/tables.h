/* Sandboxes and processes by id, children by pid: uthash behind functions. */
#pragma once

#include <sys/types.h>

struct child;
struct process;
struct sandbox;

/* A table is a pointer to its first member, NULL when it is empty. Finding nothing gives NULL. */
struct sandbox *sandbox_table_find(struct sandbox *table, const char *id);
void sandbox_table_add(struct sandbox **table, struct sandbox *sandbox);
void sandbox_table_remove(struct sandbox **table, struct sandbox *sandbox);

/* In order of ids. */
void sandbox_table_sort(struct sandbox **table);

struct process *process_table_find(struct process *table, const char *id);
void process_table_add(struct process **table, struct process *process);
void process_table_remove(struct process **table, struct process *process);

struct child *child_table_find(struct child *table, pid_t pid);
void child_table_add(struct child **table, struct child *child);
void child_table_remove(struct child **table, struct child *child);
