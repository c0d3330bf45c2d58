/* What the C library's sys/queue.h lacks: a walk whose body may remove the item it stands at. */
#pragma once

#include <sys/queue.h>

#define TAILQ_FOREACH_SAFE(item, head, field, next_item)                                           \
        for ((item) = TAILQ_FIRST(head); (item) && ((next_item) = TAILQ_NEXT((item), field), 1);   \
             (item) = (next_item))
