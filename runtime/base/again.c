#include "runtime/base/again.h"

#include <time.h>

#include "runtime/base/error.h"

int again_new(sd_event *event, sd_event_source **ret_source, sd_event_time_handler_t handler,
              void *userdata)
{
        sd_event_source *source;
        int r = sd_event_add_time(event, &source, CLOCK_MONOTONIC, 0, 1, handler, userdata);

        if (r >= 0)
                r = sd_event_source_set_enabled(source, SD_EVENT_OFF);
        if (r < 0)
                return error_origin(r);
        *ret_source = source;
        return 0;
}

void again(sd_event_source *source)
{
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}
