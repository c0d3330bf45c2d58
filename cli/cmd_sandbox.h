/* The part of `hotcell sandbox` that has its own file. */
#pragma once

#include "cli/command.h"

command_main sandbox_ls;
