/* Folders that a test makes, which go with the test, however it ends. */
#pragma once

/* Fills in the XXXXXX at the end of @path and makes that folder. Aborts when it cannot. */
void scratch_make(char *path);

/* Removes it with all in it, for a teardown; it may be gone already. Aborts when it cannot. */
void scratch_remove(const char *path);

/* Removes any folder with all in it, but nothing that is mounted there: 0, or a negative errno. */
int scratch_remove_tree(const char *path);
