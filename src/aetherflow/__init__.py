"""AetherFlow: functions become nodes, nodes compose into flows, and every execution is a span and a metric."""

from aetherflow.config import PerformanceConfig, perf_config
from aetherflow.engine.backends.errors import (
    NotImportableError,
    NotPicklableError,
    NotUnpicklableError,
    RemoteError,
    WorkerLostError,
)
from aetherflow.engine.streaming import Stream
from aetherflow.engine.walk import Failure
from aetherflow.errors import (
    AetherFlowError,
    BranchError,
    CompositionError,
    ConfigurationError,
    MissingExtraError,
    MissingInputError,
    NodeTimeoutError,
    NotAStreamError,
    ResourceError,
    SplitError,
    StreamError,
    UnknownInputError,
    UnusedOutputWarning,
)
from aetherflow.flow.batching import NotBatchedError
from aetherflow.flow.caching import NodeCache, NotCachedError
from aetherflow.flow.decorating import node
from aetherflow.flow.health_node import health_check_node
from aetherflow.flow.node import FlowRun, Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.resources.batching import (
    Batcher,
    BatcherClosedError,
    BatchInterruptedError,
    BatchItemError,
    BatchPolicy,
    BatchResultError,
    BatchStatistics,
)
from aetherflow.resources.caching import CacheKeyError, CachePolicy, CacheService, CacheStatistics, NotCacheableError
from aetherflow.resources.context import BaseFlowContext
from aetherflow.resources.pooling import (
    ObjectPool,
    PoolClosedError,
    PoolLease,
    PoolReleaseError,
    PoolStatistics,
    PoolTimeoutError,
)
from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.export.sampling_policy import KeepErrorsAndSlow, RateLimit
from aetherflow.telemetry.health.monitor import HealthMonitor, HealthReport
from aetherflow.telemetry.metrics.instruments import PerformanceMonitor, perf_monitor
from aetherflow.telemetry.profiling.policy import ProfilePolicy
from aetherflow.telemetry.setup.configuring import Telemetry, configure

__all__ = [
    "AetherFlowError",
    "BaseFlowContext",
    "BatchInterruptedError",
    "BatchItemError",
    "BatchPolicy",
    "BatchResultError",
    "BatchStatistics",
    "Batcher",
    "BatcherClosedError",
    "BranchError",
    "CacheKeyError",
    "CachePolicy",
    "CacheService",
    "CacheStatistics",
    "CompositionError",
    "ConfigurationError",
    "Failure",
    "FlowRun",
    "HealthMonitor",
    "HealthReport",
    "KeepErrorsAndSlow",
    "MissingExtraError",
    "MissingInputError",
    "Node",
    "NodeCache",
    "NodeTimeoutError",
    "NotAStreamError",
    "NotBatchedError",
    "NotCacheableError",
    "NotCachedError",
    "NotImportableError",
    "NotPicklableError",
    "NotUnpicklableError",
    "ObjectPool",
    "PerformanceConfig",
    "PerformanceMonitor",
    "PoolClosedError",
    "PoolLease",
    "PoolReleaseError",
    "PoolStatistics",
    "PoolTimeoutError",
    "ProfilePolicy",
    "RateLimit",
    "RemoteError",
    "ResourceError",
    "RetryPolicy",
    "SpanLedger",
    "SplitError",
    "Stream",
    "StreamError",
    "Telemetry",
    "UnknownInputError",
    "UnusedOutputWarning",
    "WorkerLostError",
    "configure",
    "health_check_node",
    "node",
    "perf_config",
    "perf_monitor",
]
