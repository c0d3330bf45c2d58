/* The spawner's side of the fork. */
#pragma once

/* Answers requests on @socket_fd until its peer is gone. The first packet that it sends says
 * whether it is ready (struct spawn_answer). */
_Noreturn void spawner_process_run(int socket_fd, int init_fd);
