/*
 * The further turn of a handler that has more to do than one turn of the loop should take: it comes
 * behind all that is pending already. (A defer source would not: as it is always pending, it is
 * always the oldest, and goes before every descriptor for as long as there is more to do.)
 */
#pragma once

#include <systemd/sd-event.h>

/* Comes once for each again(), later. The source belongs to the caller. 0 or a negative errno. */
int again_new(sd_event *event, sd_event_source **ret_source, sd_event_time_handler_t handler,
              void *userdata);

/* One more turn. Several of them before it comes are one. */
void again(sd_event_source *source);
