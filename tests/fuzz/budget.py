"""How long to look: a moment in the suite, always at the same; as many seconds as FUZZ_SECONDS says, at new things."""

from __future__ import annotations

import os
from typing import Final

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "0"))
"""For the interface, and for each parser; 0 is the short way."""
SEED: Final = int(os.environ.get("FUZZ_SEED", int.from_bytes(os.urandom(4)) if SECONDS else 1))
TIMEOUT: Final = SECONDS * 2 + 240
"""Of one test, for pytest: only what hangs takes so long."""
