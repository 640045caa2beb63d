"""Uploads while uploaders and Redis are killed: a few of each; ops/soak-uploads runs hundreds."""

import os
import unittest

import upload_faults


class UploadFaults(unittest.TestCase):
    """Which points are taken follows from FLEETPUSH_TEST_SEED."""

    def setUp(self):
        seed = int(os.environ.get("FLEETPUSH_TEST_SEED", "1"))
        self.rig = upload_faults.Rig(seed)
        self.addCleanup(self.rig.close)

    def test_killed_at_fail_points(self):
        points = self.rig.random.sample(upload_faults.POINTS, 8)
        for index, point in enumerate(points):
            self.rig.kill_at(point, second_alive=index % 2 == 0)
        self.rig.check_notices()
        self.assertEqual(self.rig.problems, [])
        self.assertEqual(self.rig.kills, len(points))

    def test_redis_and_client_killed(self):
        self.rig.redis_dies(with_data=True)
        self.rig.redis_dies(with_data=False)
        self.rig.client_dies()
        self.rig.check_notices()
        self.assertEqual(self.rig.problems, [])


if __name__ == "__main__":
    unittest.main()
