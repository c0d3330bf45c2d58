/* The walls, for people and for programs. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct wall_list;

void doctor_print_text(FILE *file, const struct wall_list *walls);
int doctor_print_json(FILE *file, const struct wall_list *walls);
