"""Short runs of ops/chaos: everything holds while everything breaks; and without a safeguard the checker says what broke."""

import json
import os
import subprocess
import unittest

from support import CONFIGURATION, ROOT, folder

CHAOS = os.path.join(ROOT, "ops", "chaos")
SEED = os.environ.get("FLEETPUSH_TEST_SEED", "1")


def chaos(name, *options):
    """Runs it; gives (result.json, what it printed, exit code)."""
    directory = folder(f"chaos-{name}")
    done = subprocess.run([CHAOS, "--dir", directory, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=180, check=False)
    path = os.path.join(directory, "result.json")
    if not os.path.exists(path):
        raise AssertionError(f"no result: {done.stdout}")
    with open(path, encoding="utf-8") as file:
        return json.load(file), done.stdout, done.returncode


class EverythingBreaks(unittest.TestCase):
    def test_accepted_is_kept(self):
        """Every kind of fault, each with its effect seen: exit 0 says that nothing was lost, repeated or disordered."""
        result, printed, code = chaos("all", "--seed", SEED, "--seconds", "36", "--configuration", CONFIGURATION)
        self.assertEqual(code, 0, printed)
        self.assertTrue(all(count > 0 for count in result["effective"].values()), printed)
        self.assertGreater(result["counts"]["accepted"], 1000)


@unittest.skipIf(CONFIGURATION == "release", "only debug builds have the switches")
class CheckerProvesItself(unittest.TestCase):
    SMALL = ["--seed", "3", "--seconds", "14", "--clients", "60", "--hosts", "3", "--settle", "4"]

    def without(self, name):
        result, printed, code = chaos(name, *self.SMALL, "--without", name)
        self.assertEqual(code, 1, printed)
        return result["counts"], printed

    def test_without_dedupe_messages_are_seen_twice(self):
        counts, printed = self.without("dedupe")
        self.assertGreater(counts["seen twice by the application"], 0, printed)
        self.assertEqual(counts["lost"], 0, printed)

    def test_without_replay_messages_are_lost(self):
        counts, printed = self.without("replay")
        self.assertGreater(counts["lost"], 0, printed)
        self.assertGreater(counts["not acknowledged at the end"], 0, printed)

    def test_without_fencing_the_registry_is_wrong(self):
        counts, printed = self.without("fencing")
        self.assertGreater(counts["registry wrong"], 0, printed)
        self.assertEqual(counts["lost"], 0, printed)


if __name__ == "__main__":
    unittest.main()
