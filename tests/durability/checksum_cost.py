"""What the checksums of a checkpoint cost: seconds per GB to write the marker and to verify the files.

    python -m tests.durability.checksum_cost --gigabytes 4

The files have been written just before, so that the system still holds them in memory, as it does when a checkpoint is
marked. A resumed run reads them from the disk, which it does anyway to load them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from hpt_trl.durability.markers import damage_reason, mark_complete

FILES = 4
CHUNK = 1 << 24


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4, help="size of the checkpoint, in four files")
    gigabytes = parser.parse_args().gigabytes
    with tempfile.TemporaryDirectory() as name:
        folder, chunk = Path(name), os.urandom(CHUNK)
        for index in range(FILES):
            with (folder / f"model-{index}.safetensors").open("wb") as file:
                for _ in range(round(gigabytes * 1e9 / FILES / CHUNK)):
                    file.write(chunk)
                os.fsync(file.fileno())
        start = time.perf_counter()
        mark_complete(folder)
        marked = time.perf_counter()
        assert damage_reason(folder) is None
        verified = time.perf_counter()
    print(
        f"{os.cpu_count()} CPUs: {(marked - start) / gigabytes:.2f} s per GB to mark, "
        f"{(verified - marked) / gigabytes:.2f} s per GB to verify."
    )


if __name__ == "__main__":
    main()
