"""Kills of hotcelld, and clients that live through them."""

import os
import signal
import time

import grpc

from daemons import PATIENCE


def kill(running):
    os.kill(running.server_pid(), signal.SIGKILL)


def retry(call):
    """Calls until the server answers; kills in between show as UNAVAILABLE."""
    end = time.monotonic() + 60 * PATIENCE
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(0.05)
