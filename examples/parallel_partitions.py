"""Fan out over partitions (智能扇出策略).

`[parallel_processor] * 4` is four workers over the partitions of the source, however many those are.
"""

from aetherflow import configure, node


def cpu_intensive_task(item):
    """Count the Collatz steps from a number down to 1."""
    steps = 0
    while item > 1:
        item = item // 2 if item % 2 == 0 else 3 * item + 1
        steps += 1
    return steps


@node
def data_partitioner(large_dataset, partition_size=1000):
    """Cut the data into partitions."""
    partitions = []
    data = large_dataset["data"]

    for i in range(0, len(data), partition_size):
        partition = data[i : i + partition_size]
        partitions.append({"partition_id": i // partition_size, "data": partition})

    return {"partitions": partitions}


@node
def parallel_processor(data_partitioner):
    """Process one partition: the source's name means the element that this execution got."""
    partition_data = data_partitioner["data"]

    # CPU-bound
    processed = []
    for item in partition_data:
        result = cpu_intensive_task(item)
        processed.append(result)

    return {
        "partition_id": data_partitioner["partition_id"],
        "processed_data": processed,
        "count": len(processed),
    }


@node
def result_aggregator(parallel_results):
    """Put the results together."""
    all_results = []
    total_count = 0

    # By partition_id, so that the order is that of the data.
    sorted_results = sorted(parallel_results.values(), key=lambda x: x["partition_id"])

    for result in sorted_results:
        all_results.extend(result["processed_data"])
        total_count += result["count"]

    return {
        "final_results": all_results,
        "total_processed": total_count,
        "partitions": len(sorted_results),
    }


# The parallel pipeline, with 4 workers.
optimized_parallel_flow = data_partitioner.fan_out_to([parallel_processor] * 4).fan_in(result_aggregator)

# The same in operators.
same_flow = data_partitioner >> [parallel_processor] * 4 >> result_aggregator


def main():
    print(f"the flow: {optimized_parallel_flow}")
    print(f"the same in operators: {str(same_flow) == str(optimized_parallel_flow)}")

    run = optimized_parallel_flow.execute({"data": list(range(1, 7_501))})
    result = run.output
    print(f"{result['total_processed']:,} numbers in {result['partitions']} partitions on 4 workers")
    steps = result["final_results"]
    print(f"most Collatz steps: {max(steps)}, from {steps.index(max(steps)) + 1:,}")
    last = run.outputs["parallel_processor[7]"]
    print(f"the last partition had {last['count']} numbers")

    nothing = optimized_parallel_flow.run({"data": []})
    print(f"no data: {nothing['partitions']} partitions, and the aggregator still ran")


if __name__ == "__main__":
    with configure(service_name="parallel-partitions"):
        main()
