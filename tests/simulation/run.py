"""Long runs of the simulator.

python tests/simulation/run.py --histories 1000 --steps 20 --seed 0   histories against the model
python tests/simulation/run.py --every-call [--part 0/8]              a fault at every storage call
python tests/simulation/run.py --nights 10000 --seed 0                nights with random faults
"""

import argparse
import logging
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "pipelines" / "nightly")]

from simulation.erasure import erasure  # noqa: E402
from simulation.every_call import two_nights  # noqa: E402
from simulation.history import play, play_nights  # noqa: E402
from simulation.world import simulated  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--nights", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-call", action="store_true")
    parser.add_argument("--erasure", action="store_true", help="--every-call of an erasure")
    parser.add_argument("--part", default="0/1", help="K/N: the K-th of N parts")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with simulated():
        found = every_call(arguments) if arguments.every_call else histories(arguments)
    return 1 if found else 0


def histories(arguments: argparse.Namespace) -> int:
    """Play them; every failure is printed with its seed and its steps."""
    started, played, nights, calls, failed = time.monotonic(), 0, 0, 0, []
    seed = arguments.seed
    while played < arguments.histories or nights < arguments.nights:
        try:
            is_of_nights = arguments.nights > 0
            history = (play_nights if is_of_nights else play)(seed, arguments.steps)
            nights += history.nights
            calls += history.world.calls
        except AssertionError as error:
            failed.append(seed)
            print(f"FAILED {error}", flush=True)
        played, seed = played + 1, seed + 1
        if time.monotonic() - started > arguments.seconds or len(failed) >= 20:
            break
    print(
        f"{played} histories of {arguments.steps} steps (seeds {arguments.seed} to {seed - 1}): "
        f"{len(failed)} failed {failed}; {nights} nights, {calls} storage calls, "
        f"{time.monotonic() - started:.0f} s"
    )
    return len(failed)


def every_call(arguments: argparse.Namespace) -> int:
    """Every fault at every call; differences are printed."""
    started = time.monotonic()
    subject = erasure() if arguments.erasure else two_nights()
    part, parts = map(int, arguments.part.split("/"))
    trials = list(subject.trials())[part::parts]
    failed = 0
    for trial in trials:
        problem = subject.problem(trial)
        if problem:
            failed += 1
            print(f"{trial}: {problem}", flush=True)
    calls = len({(trial.night, trial.number) for trial in subject.trials()})
    what = "an erasure" if arguments.erasure else "two nights"
    print(
        f"{len(trials)} faults at the {calls} calls of {what}: {failed} differ, "
        f"{time.monotonic() - started:.0f} s"
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
