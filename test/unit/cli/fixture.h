/* Catches what the code under test writes. */
#pragma once

#include <stdio.h>

/* What was written to @file so far, to be freed; closes it. */
char *written(FILE *file);
