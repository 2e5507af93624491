"""Python's garbage collector, out of the way of processes that make many objects in no cycle."""

import gc


def collect_rarely() -> None:
    """Once all is imported and loaded. A worker's chunk is some 50,000 objects in no cycle, gone with it: by default
    the collector looks at them again and again (a sixth of the worker's time), and each time at everything that was
    imported, which holds a server up for 50 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
