#include "test/unit/egress_relay/steps.h"

#include <check.h>
#include <errno.h>

enum flow_side far_of(enum flow_side near)
{
        return near == FLOW_INSIDE ? FLOW_OUTSIDE : FLOW_INSIDE;
}

bool start(struct relay *relay, int n_buffer)
{
        int near[_FLOW_SIDE_N];

        if (!relay_init(relay, n_buffer, near))
                return false;
        ck_assert_int_eq(relay_start(relay, near), 0);
        return true;
}

void send_bytes(struct far_end *end, uint64_t n_bytes, bool ends_then)
{
        end->n_to_send += n_bytes;
        end->ends_then = ends_then;
        far_end_update(end);
}

void set_reading(struct far_end *end, bool is_reading)
{
        end->is_reading = is_reading;
        far_end_update(end);
}

void expect_told(const struct relay *relay, enum flow_how how, enum flow_side side, int error)
{
        ck_assert_uint_eq(relay->n_told, 1);
        ck_assert_int_eq(relay->told.how, how);
        ck_assert_int_eq(relay->told.error, error);
        if (how == FLOW_RESET || how == FLOW_FAILED || how == FLOW_URGENT)
                ck_assert_int_eq(relay->told.side, side);
}

void expect_closed(struct relay *relay)
{
        relay_run_until_told(relay);
        expect_told(relay, FLOW_CLOSED, FLOW_INSIDE, 0);
}

void expect_reset(struct relay *relay, int side)
{
        relay_run_until_told(relay);
        expect_told(relay, FLOW_RESET, (enum flow_side)side, ECONNRESET);
}

void expect_both_broken(struct relay *relay)
{
        for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                relay_run_until_broken(relay, &relay->ends[i]);
                ck_assert_int_eq(relay->ends[i].error, ECONNRESET);
        }
}
