"""Where torch's compiler keeps its cache while a training runs.

Building an optimizer imports the compiler, which at once creates `torchinductor_<user>` in the temporary directory: a
name that another user of the machine can predict and occupy, and a folder that stays. Nothing here compiles a net.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cloudseg.scratch import scratch_directory

_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def private_compiler_cache() -> Iterator[None]:
    """Let torch's compiler use a scratch directory inside the block, unless the environment names one.

    Raises:
        SettingsError: the temporary directory cannot be written.
    """
    if os.environ.get(_VARIABLE):
        yield
        return
    with scratch_directory("compiler") as folder:
        os.environ[_VARIABLE] = str(folder)
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE, None)
