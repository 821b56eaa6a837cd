"""Find the bottleneck (瓶颈检测).

A node that profiles itself with cProfile, by hand as in the guide. From Python 3.12 on only one thread may have a
profiler on, and it sees the calls of the other threads too: profile one run at a time.
"""

import cProfile
import pstats
from io import StringIO

from aetherflow import configure, node


def cheapest_edit(row, above, column, substitution):
    return min(above[column] + 1, row[-1] + 1, above[column - 1] + substitution)


def complex_algorithm(item):
    """Return the edit distance of two words."""
    left, right = item
    above = list(range(len(right) + 1))
    for index, letter in enumerate(left, start=1):
        row = [index]
        for column in range(1, len(right) + 1):
            row.append(cheapest_edit(row, above, column, letter != right[column - 1]))
        above = row
    return above[-1]


@node
def profiled_processor(data):
    """Process under a profiler."""

    def _internal_process():
        # The work itself.
        result = []
        for item in data["items"]:
            processed = complex_algorithm(item)
            result.append(processed)
        return result

    # Begin to profile.
    profiler = cProfile.Profile()
    profiler.enable()

    try:
        result = _internal_process()
    finally:
        profiler.disable()

    # Evaluate it.
    stats_stream = StringIO()
    stats = pstats.Stats(profiler, stream=stats_stream)
    stats.sort_stats("cumulative")
    stats.print_stats(10)  # only the 10 functions that took longest

    profile_output = stats_stream.getvalue()

    return {"result": result, "profile_report": profile_output, "processed_count": len(result)}


def main():
    words = [("kitten", "sitting"), ("aether", "weather"), ("flow", "flow")]
    outcome = profiled_processor.run({"items": words})
    for (left, right), distance in zip(words, outcome["result"], strict=True):
        print(f"{left} -> {right}: {distance}")
    print(f"processed: {outcome['processed_count']}")
    print(outcome["profile_report"])


if __name__ == "__main__":
    with configure(service_name="profiled-node"):
        main()
