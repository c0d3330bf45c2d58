/*
 * The socket on which another daemon speaks: one peer at a time, packets with descriptors in and
 * out. What a peer does not read is queued up to a bound; then the peer is dropped, because one
 * that has stopped reading is better started anew than waited for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct channel;

enum { CHANNEL_FDS_MAX = 16 };

struct channel_observer {
        /* @bytes are good until it returns; so are the descriptors, but for those that are taken
         * (take_fd). */
        void (*on_packet)(void *userdata, const uint8_t *bytes, size_t n_bytes, int *fds,
                          size_t n_fds);
        /* The peer is gone. */
        void (*on_disconnect)(void *userdata);
        /* The socket took all that waited for the peer. From the loop; NULL: nobody asks. */
        void (*on_drained)(void *userdata);
        void *userdata;
};

struct channel_config {
        const char *peer;       /* name of the other daemon, for the log */
        const char *path;       /* of the socket; what lies there is replaced. NULL: none, peers
                                 * come by channel_adopt() */
        uid_t peer_uid;         /* who may connect, besides root */
        gid_t peer_gid;         /* the socket's group */
        size_t packet_max;      /* bytes of one packet */
        size_t queue_bytes_max; /* what may wait for the peer */
        struct channel_observer observer;
};

int channel_new(sd_event *event, const struct channel_config *config, struct channel **ret_channel);

/* Drops the peer without telling the observer, and removes the socket. */
struct channel *channel_free(struct channel *channel);

/* Speaks on @fd from now on, a connected seqpacket socket that does not block. The observer is not
 * told of the end of the peer before, if there was one. Takes @fd, also when it fails. */
int channel_adopt(struct channel *channel, int fd);

/* Handles what the peer sent so far, without waiting for the loop: for whoever is told by another
 * channel of what was said here before. */
void channel_catch_up(struct channel *channel);

/* While it is held nothing is heard, also not that the peer is gone: what comes waits in the
 * socket. For an observer that is busy with the last packet for some turns of the loop. */
void channel_hold(struct channel *channel, bool is_held);

/* Tells one connection from another; zero when there is none. */
uint64_t channel_connection(const struct channel *channel);

/*
 * Queues one packet. Takes the descriptors in any case; without a peer all of it is dropped. The
 * peer may be dropped in it, but the observer is told later, from the loop.
 */
void channel_send(struct channel *channel, const void *bytes, size_t n_bytes, const int *fds,
                  size_t n_fds);

/* Nothing waits for the peer: what is sent now is likely to fit its socket. */
bool channel_is_drained(const struct channel *channel);

/* Ends the connection with a peer that breaks the protocol; the observer is told from the loop. */
void channel_drop(struct channel *channel);
