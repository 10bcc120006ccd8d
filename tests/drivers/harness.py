"""What both Python checks share: the count, the lines that are printed, and keys that nobody else uses."""

import os
import sys
import time

DSN = os.environ["PGHERD_DSN"]
SHARDED = os.environ.get("PGHERD_SHARDED") == "1"


class Checks:
    def __init__(self, driver):
        self.driver, self.passed, self.failed = driver, 0, 0
        # Above every key of the demo, and another range for each run.
        self.base = 10**9 + (time.time_ns() // 1000 + os.getpid() * 1000) % 10**9 * 1000
        self.keys = []

    def key(self):
        self.keys.append(self.base + len(self.keys))
        return self.keys[-1]

    def note(self, number, what, error=None):
        if error is None:
            self.passed += 1
            print(f"ok {number:2} {what}")
        else:
            self.failed += 1
            print(f"FAILED {number:2} {what}: {type(error).__name__}: {error}")

    def finish(self):
        print(f"{self.driver}: {self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or self.passed == 0 else 0)


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")
