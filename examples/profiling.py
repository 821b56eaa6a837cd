"""Find the bottleneck without touching the code: profiles on the spans and in files.

One node counts its calls with cProfile, another one is sampled, and all nodes are sampled once they were slow.
"""

import pstats
import time
from pathlib import Path

from aetherflow import ProfilePolicy, configure, node

PROFILES = Path(".aetherflow", "profiles")


def cheapest_edit(row, above, column, substitution):
    return min(above[column] + 1, row[-1] + 1, above[column - 1] + substitution)


@node(profile=ProfilePolicy(profiler="cprofile", directory=PROFILES))
def edit_distance(left, right):
    above = list(range(len(right) + 1))
    for index, letter in enumerate(left, start=1):
        row = [index]
        for column in range(1, len(right) + 1):
            row.append(cheapest_edit(row, above, column, letter != right[column - 1]))
        above = row
    return above[-1]


def is_prime(number):
    divisor = 2
    while divisor * divisor <= number and number % divisor:
        divisor += 1
    return divisor * divisor > number


@node(profile=ProfilePolicy(profiler="sampling", directory=PROFILES, speedscope=True))
def count_primes(below):
    found = 0
    for number in range(2, below):
        found += is_prime(number)
    return found


@node
def look_up(seconds):
    time.sleep(seconds)
    return seconds


def bottleneck(node_name):
    """Return the function of ours that took most time with all that it called, the node itself left out."""
    (file,) = PROFILES.glob(f"{node_name}-*.pstats")
    profiles = pstats.Stats(str(file)).get_stats_profile().func_profiles
    ours = {name: each.cumtime for name, each in profiles.items() if each.file_name == __file__ and name != node_name}
    return max(ours, key=ours.__getitem__)


def main():
    policy = ProfilePolicy(slower_than=0.4, nodes="look_*", profiler="sampling")
    with configure(service_name="profiling", profile=policy):  # or AETHER_PROFILE=slower_than=0.4,nodes=look_*
        print("kitten -> sitting:", edit_distance.run({"left": "kitten", "right": "sitting"}))
        print("it spends its time in", bottleneck("edit_distance"))
        print("primes below 100,000:", count_primes.run({"below": 100_000}))
        print("it spends its time in", bottleneck("count_primes"))
        for seconds in (0.0, 0.5, 0.5, 0.0):  # the second one is slow, so the third one is profiled
            look_up.run({"seconds": seconds})
    print("files:", *sorted({file.name.partition("-")[0] + "".join(file.suffixes) for file in PROFILES.iterdir()}))


if __name__ == "__main__":
    main()
