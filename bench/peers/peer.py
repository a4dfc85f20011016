"""What the Python peers share: the path to the golden scripts' model loader, token ids, and peak memory."""

import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden"))


def token_ids(row: int, length: int, vocab: int = 49152) -> list[int]:
    """The same ids as bench/lib/rows.ts."""
    return [(row * 7919 + k * k * 31 + k * 101) % (vocab - 20) + 17 for k in range(length)]


def peak_resident_bytes() -> int:
    """Largest resident size of this process. Not getrusage on Linux, whose figure includes the parent's size at the fork."""
    try:
        with open("/proc/self/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

