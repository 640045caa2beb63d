"""Breaks a cluster on purpose while numbered messages go through it, and checks what arrived.

Three gateways, Redis and the embedded broker on this machine; endpoints as the agent runs them, behind a proxy that cuts
their connections. Gateways are killed and stopped past their lease, the broker goes down or loses its log, Redis restarts,
endpoints flap, move, and are killed. A seed replays the schedule of faults. Exit 0 only if nothing was lost, repeated,
disordered or corrupted, at least 95 % was accepted, all was acknowledged, and every kind of fault had its effect.
"""

import argparse
import asyncio
import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
for source in ["ops/lib", ".build/stubs/ours"]:
    sys.path.insert(0, os.path.join(ROOT, source))
# The folder of this file isn't a place to look for modules: its names would hide others.
sys.path[:] = [place for place in sys.path if os.path.realpath(place or ".") != os.path.dirname(os.path.realpath(__file__))]

from chaos.run import run  # noqa: E402  (the paths are set above)

USAGE_EXIT = 64


class UsageParser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(USAGE_EXIT, f"{self.prog}: {message}\n")


def parse():
    parser = UsageParser(prog="chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the faults and of what is published")
    parser.add_argument("--seconds", type=int, default=60, metavar="S", help="how long there are faults")
    parser.add_argument("--clients", type=int, default=200, metavar="N")
    parser.add_argument("--hosts", type=int, default=8, metavar="N", help="processes that the endpoints live in")
    parser.add_argument("--rate", type=float, default=100, metavar="R", help="messages a second")
    parser.add_argument("--settle", type=float, metavar="S", help="how long all may take to be acknowledged (60)")
    parser.add_argument("--without", default="", metavar="NAME",
                        help="leave a safeguard out: dedupe, replay or fencing (debug builds); the run has to fail then")
    parser.add_argument("--configuration", choices=["debug", "release"], default="debug", help="which build to run")
    parser.add_argument("--dir", default=os.path.join(ROOT, ".build", "chaos"), metavar="D", help="emptied, then kept")
    parser.add_argument("--verbose", action="store_true", help="print each fault and its effect")
    options = parser.parse_args()
    options.binaries = os.path.join(ROOT, ".build", options.configuration)
    options.dir = os.path.abspath(options.dir)
    for name in ["gateway", "bench", "devbroker"]:
        if not os.access(os.path.join(options.binaries, name), os.X_OK):
            parser.error(f"{options.binaries}/{name} is not built: swift build -c {options.configuration}")
    if options.without and options.configuration == "release":
        parser.error("a release build has no switches")
    return options


async def main():
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await run(parse())
    except asyncio.CancelledError:
        return 130


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
