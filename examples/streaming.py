"""Work through a file without holding it (流式处理优化).

The guide's source returns a generator in a mapping. The reading then happens while the *processor* runs, so that is
whose span it lands on. A node that is itself a generator has a span of its own, over all of its items.
"""

import tempfile
from collections import Counter
from pathlib import Path

from aetherflow import configure, node

statuses: Counter[str] = Counter()


def process_item(item):
    """Take the status out of a line of an access log."""
    return item.rpartition(" ")[2]


def save_batch_results(processed_batch, batch_count):
    """Fold a batch into a tally: all that is kept of it."""
    statuses.update(processed_batch)


@node
def streaming_data_source(file_path, chunk_size=1000):
    """Read a file in chunks."""

    def data_generator():
        with open(file_path) as f:
            chunk = []
            for line in f:
                chunk.append(line.strip())

                if len(chunk) >= chunk_size:
                    yield chunk
                    chunk = []

            # The last chunk, which is not full.
            if chunk:
                yield chunk

    return {"data_stream": data_generator()}


@node
def streaming_processor(streaming_data_source):
    """Process chunk by chunk."""
    processed_count = 0
    batch_count = 0

    # One chunk at a time, never all of them.
    for batch in streaming_data_source["data_stream"]:
        processed_batch = [process_item(item) for item in batch]

        # Let go of the results at once.
        save_batch_results(processed_batch, batch_count)

        processed_count += len(processed_batch)
        batch_count += 1

    return {
        "total_processed": processed_count,
        "batches": batch_count,
        "avg_batch_size": processed_count / batch_count if batch_count > 0 else 0,
    }


@node
def chunks(file_path, chunk_size=1000):
    """The source as a generator node."""
    yield from streaming_data_source.func(file_path, chunk_size)["data_stream"]


@node
def tally(chunks):
    """The processor over it."""
    return Counter(process_item(item) for chunk in chunks for item in chunk)


def write_access_log(path):
    """Write 2,500 requests, every tenth of which failed."""
    with path.open("w") as log:
        for number in range(2_500):
            log.write(f"GET /items/{number} {503 if number % 10 == 0 else 200}\n")


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "access.log")
        write_access_log(path)

        result = (streaming_data_source >> streaming_processor).run({"file_path": path})
        print(f"{result['total_processed']:,} lines in {result['batches']} batches of {result['avg_batch_size']:.0f}")
        print(f"by status: {dict(sorted(statuses.items()))}")

        counted = (chunks >> tally).run({"file_path": path, "chunk_size": 500})
        print(f"with a generator node the same: {counted == statuses}")

        first = next(chunks.stream({"file_path": path, "chunk_size": 3}))
        print(f"taken one at a time: {first}")


if __name__ == "__main__":
    with configure(service_name="streaming"):
        main()
