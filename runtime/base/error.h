/*
 * Errors: 0 is success, negative is an errno nobody planned for (pass it up), positive is one of
 * the callee's documented outcomes (handle it where it arrives).
 *
 * error_origin() marks where a negative error was born, error_fold() where it passes or where an
 * outcome that the caller did not expect becomes an error; both leave a trace at debug level.
 */
#pragma once

#define error_origin(error) error_trace_origin((error), __FILE__, __LINE__, __func__)
#define error_fold(error)   error_trace_fold((error), __FILE__, __LINE__, __func__)

int error_trace_origin(int error, const char *file, int line, const char *function);
int error_trace_fold(int error, const char *file, int line, const char *function);
