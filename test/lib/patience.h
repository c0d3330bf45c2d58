/*
 * How many times longer than usual tests wait before they give up: on a slow machine
 * HOTCELL_TEST_PATIENCE says so.
 */
#pragma once

#include <stdlib.h>

static inline int test_patience(void)
{
        const char *text = getenv("HOTCELL_TEST_PATIENCE");
        int patience = text ? atoi(text) : 1;

        return patience > 1 ? patience : 1;
}
