/* How a server measures, in one line. */
#pragma once

#include "hotcell/v1/server_service.pb-c.h"

/* Nothing for NULL, which is what an older server, or one without a runtime, has. */
void print_metering(const Hotcell__V1__Metering *metering);
