"""Errors of the tools, in addition to those of `cloudseg.errors`."""

from cloudseg.errors import CloudsegError


class ServiceFailed(CloudsegError):
    """A service that the demo or the stack started failed or did not become healthy."""

    exit_code = 7
