"""Tune by settings (配置调优).

The guide's `PerformanceConfig` is AetherFlow's: the same settings from the same variables, and a value that is not
allowed is refused with its variable's name. Try `AETHER_BATCH_SIZE=50`, and `AETHER_BATCH_SIZE=many`.
"""

from dependency_injector import providers

from aetherflow import BaseFlowContext, ConfigurationError, ObjectPool, configure, node, perf_config


class OptimizedProcessor:
    """Sums batches."""

    def process(self, batch):
        return sum(batch)


@node
def process_in_batches(data, config, processor_pool: ObjectPool[OptimizedProcessor]):
    """Work in batches of the configured size, with a processor of the pool."""
    size = config.batch_size
    with processor_pool.lease() as processor:
        totals = [processor.process(data[i : i + size]) for i in range(0, len(data), size)]
    return {"batches": len(totals), "total": sum(totals)}


def main():
    # Global settings: the environment is read here, when first used.
    for setting in perf_config.explain():
        print(f"{setting.name} = {setting.value} ({setting.source})")

    class ProductionContext(BaseFlowContext):
        """The context for production."""

        config = providers.Object(perf_config)

        # Providers as the settings say.
        processor_pool = providers.Singleton(
            ObjectPool, factory_func=OptimizedProcessor, max_size=perf_config.memory_pool_size
        )

    context = ProductionContext()
    print(f"the pool keeps {context.processor_pool().max_size} processors")
    print(f"1,000 numbers: {process_in_batches.run({'data': range(1_000)}, context)}")


if __name__ == "__main__":
    with configure(service_name="production-config"):
        try:
            main()
        except ConfigurationError as error:
            raise SystemExit(str(error)) from None
