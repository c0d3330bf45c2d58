/*
 * gRPC, and only gRPC: bytes in, bytes out. Nothing above this folder knows the library.
 *
 * All functions and callbacks run on the loop thread. A pump thread carries completions to it.
 * A call belongs to the server; a handler uses it until it has finished it or on_gone was called.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

struct rpc_server;
struct rpc_call;

/* The canonical codes that we use (google.rpc.Code). */
enum rpc_code {
        RPC_OK = 0,
        RPC_CANCELLED = 1,
        RPC_INVALID_ARGUMENT = 3,
        RPC_DEADLINE_EXCEEDED = 4,
        RPC_NOT_FOUND = 5,
        RPC_ALREADY_EXISTS = 6,
        RPC_PERMISSION_DENIED = 7,
        RPC_RESOURCE_EXHAUSTED = 8,
        RPC_FAILED_PRECONDITION = 9,
        RPC_ABORTED = 10,
        RPC_OUT_OF_RANGE = 11,
        RPC_UNIMPLEMENTED = 12,
        RPC_INTERNAL = 13,
        RPC_UNAVAILABLE = 14,
        RPC_UNAUTHENTICATED = 16,
};

/* Who is at the other end. */
struct rpc_peer {
        bool is_unix; /* else loopback TCP, and the fields below are unset */
        uid_t uid;
        gid_t gid;
        pid_t pid;
};

/* One row of a method table. */
struct rpc_method {
        const char *path; /* `/package.Service/Method` */
        /* May be NULL. Called when only the head of the call has come: who calls is known, and not
         * a byte of the request is kept yet. It lets the request come, or fails the call. */
        void (*admit)(struct rpc_call *call, void *userdata);
        /* @request is only good during the call. The handler answers now or later, exactly once:
         * rpc_call_reply, rpc_call_fail, or for streams rpc_call_write … rpc_call_finish. */
        void (*handle)(struct rpc_call *call, const void *request, size_t n_request,
                       void *userdata);
        /* The client sends a stream: @handle is called for each message, and with a NULL @request
         * when there are no more. The next one is read when nothing is in flight to the client. */
        bool streams_requests;
};

/* Methods that share their userdata. The table must live as long as the server. */
struct rpc_service {
        const struct rpc_method *methods;
        size_t n_methods;
        void *userdata; /* for handlers */
};

struct rpc_server_config {
        const struct rpc_service *services; /* only read by rpc_server_new */
        size_t n_services;
        size_t receive_max_bytes; /* larger requests, also decompressed: RESOURCE_EXHAUSTED */
        unsigned streams_max;     /* concurrent calls of one connection */
        /* An eighth of them only for unix sockets. When there is no place, TCP connections that
         * have not shown whose they are give theirs, the oldest first; else new ones are closed. */
        unsigned connections_max;

        /* Zero: no bound. */
        unsigned connections_per_owner_max;
        unsigned calls_per_owner_max;
        size_t unread_per_owner_max_bytes; /* of answers that clients have not read */
        uint64_t identify_timeout_usec;    /* for a TCP connection to show whose it is */
        uint64_t request_timeout_usec;     /* for a request to come, once its head has */
};

enum {
        RPC_E_IN_USE = 1,   /* another live server listens there */
        RPC_E_NOT_LOOPBACK, /* plaintext is only served on loopback addresses */
        RPC_E_BAD_ADDRESS,  /* malformed, too long, or the path of something that is no socket */
};

/* Makes a server that does not listen yet. Signals are blocked by now: gRPC starts threads. */
int rpc_server_new(sd_event *loop, const struct rpc_server_config *config,
                   struct rpc_server **ret_server);

/* After on_stopped (also from it), or when it was never started; joins the pump. */
struct rpc_server *rpc_server_free(struct rpc_server *server);

/*
 * Listens on a unix socket (mode 0660, group @gid unless (gid_t)-1). A stale socket file is
 * replaced, a live server's is not: a lock file `<path>.lock` says whose it is.
 */
int rpc_server_listen_unix(struct rpc_server *server, const char *path, gid_t gid);

/* Listens on `127.0.0.1:PORT`, `[::1]:PORT` or `localhost:PORT`; port 0 picks one. */
int rpc_server_listen_tcp(struct rpc_server *server, const char *address, uint16_t *ret_port);

enum {
        RPC_E_CALL_LIMIT = 1,   /* the owner has as many calls as it may */
        RPC_E_CONNECTION_LIMIT, /* the same of connections */
};

/*
 * From a method's admit: the call is @owner's, and so is its connection if it was nobody's. What is
 * not bounded has as many calls and connections as it likes. A call that is never charged counts as
 * its connection's owner's, or as one of all strangers.
 */
int rpc_call_charge(struct rpc_call *call, const char *owner, bool is_bounded);

/* For admit to leave something for handle. */
void rpc_call_set_context(struct rpc_call *call, void *context);
void *rpc_call_context(const struct rpc_call *call);

/* Starts to serve. */
int rpc_server_start(struct rpc_server *server);

/* Calls that are not over. */
size_t rpc_server_n_calls(const struct rpc_server *server);

/*
 * Graceful stop: no new connections and calls; running ones may finish for @grace_usec, then they
 * are cancelled.
 * @on_stopped comes once, from the loop, when no call is left.
 */
void rpc_server_stop(struct rpc_server *server, uint64_t grace_usec,
                     void (*on_stopped)(void *userdata), void *userdata);

/* What the peer is, and its request metadata (keys are lower case; NULL when absent; the first of
 * several). */
const struct rpc_peer *rpc_call_peer(const struct rpc_call *call);
const char *rpc_call_metadata(struct rpc_call *call, const char *key);
const char *rpc_call_path(const struct rpc_call *call);

/* Whether an answer of @n_bytes may be given: what the owner's clients have not read is bounded. */
bool rpc_call_has_room(const struct rpc_call *call, size_t n_bytes);

/* Unary answer. Copies. */
void rpc_call_reply(struct rpc_call *call, const void *response, size_t n_response);

/*
 * Ends a call of either kind with an error. @message is UTF-8; @details, if any, a packed
 * google.rpc.Status (the caller keeps both together below 4 KiB: longer ones break some clients).
 * Messages already written go out before.
 */
void rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                   const void *details, size_t n_details);

/* Streams. One message is in flight at a time; write only when writable. Copies. Whoever was told
 * that it is not writable hears on_writable once it is. */
bool rpc_call_is_writable(struct rpc_call *call);
void rpc_call_write(struct rpc_call *call, const void *message, size_t n_message);

/* Ends a stream with OK, after what is in flight. */
void rpc_call_finish(struct rpc_call *call);

/* How a handler that has not finished hears of its call. */
struct rpc_call_observer {
        /* After each write went out; may be NULL. */
        void (*on_writable)(struct rpc_call *call, void *userdata);
        /* Cancelled, disconnected or past its deadline: forget it. */
        void (*on_gone)(struct rpc_call *call, void *userdata);
};

/*
 * At most one; NULL takes it off. Not called after rpc_call_reply, _fail or _finish. A call that
 * goes while nobody observes it stays until its handler has answered (into the void) or observes
 * it: then on_gone comes from the loop.
 */
void rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                      void *userdata);
