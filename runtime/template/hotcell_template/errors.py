"""What can go wrong, with a name that scripts can match and what to do about it."""


class TemplateError(Exception):
    """A failure that was foreseen: @reason is stable, @advice is for people."""

    def __init__(self, reason, message, advice=None):
        super().__init__(message)
        self.reason = reason
        self.advice = advice


class Interrupted(BaseException):
    """A signal asked the build to stop. Not an Exception: nothing may swallow it."""

    def __init__(self, signal_number):
        super().__init__(signal_number)
        self.signal_number = signal_number
