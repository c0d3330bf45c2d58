/* The headers of gRPC core, whose credentials moved to a header of their own in 1.64. */
#pragma once

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/slice.h>
#if __has_include(<grpc/credentials.h>)
#include <grpc/credentials.h>
#else
#include <grpc/grpc_security.h>
#endif
