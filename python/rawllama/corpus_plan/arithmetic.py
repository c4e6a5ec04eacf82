"""What so many documents cost, and what limits how fast they are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from rawllama.errors import InvalidArgumentError

from .rates import Length, Rates

HOUR = 3600.0


@dataclass(frozen=True)
class Assumptions:
    """What is not measured: the machines that there would be, and their network.

    Attributes
    ----------
    documents
        Sizes of corpora.
    nodes, cores_per_node
        Clusters of CPUs; a core is taken to be as fast as those that were measured.
    gpus, gpu_tokens_per_second, gpu_name
        Clusters of GPUs, and what one embeds a second: given by who asks; None leaves GPUs out.
    dtype
        Of the vectors that are written.
    node_gbit, storage_gbit
        What the network of a node, or of a GPU's machine, carries; and the shared storage in all: Gbit a second.
    """

    documents: Sequence[float] = (1e7, 1e9, 1e11)
    nodes: Sequence[int] = (1, 10, 100, 1000)
    cores_per_node: int = 64
    gpus: Sequence[int] = (1, 8, 64, 512)
    gpu_tokens_per_second: float | None = None
    gpu_name: str = "GPU"
    dtype: str = "float32"
    node_gbit: float = 10
    storage_gbit: float = 100

    def __post_init__(self) -> None:
        numbers: dict[str, Sequence[float]] = {
            "documents": self.documents,
            "nodes": self.nodes,
            "gpus": self.gpus,
            "cores_per_node": [self.cores_per_node],
            "gpu_tokens_per_second": [1 if self.gpu_tokens_per_second is None else self.gpu_tokens_per_second],
            "node_gbit": [self.node_gbit],
            "storage_gbit": [self.storage_gbit],
        }
        for name, values in numbers.items():
            for value in values or [0]:
                if not 0 < value < inf:
                    raise InvalidArgumentError(f"{name}: {value!r}; pass numbers above 0")


@dataclass(frozen=True)
class Limits:
    """Documents a second of `workers` nodes or GPUs: by computing, by each one's network, and by the storage of all."""

    computing: float
    network: float
    storage: float

    @property
    def documents_per_second(self) -> float:
        """The least of them."""
        return min(self.computing, self.network, self.storage)

    @property
    def name(self) -> str:
        """Which it is."""
        return min(("computing", "network", "storage"), key=lambda name: getattr(self, name))


def text_bytes(rates: Rates, length: Length) -> float:
    """Bytes of a document's text in Parquet."""
    return length.text_bytes * rates.text_share


def traffic(rates: Rates, length: Length, dtype: str) -> float:
    """Bytes a document that go over the network: its text is read, and is written again with the vector."""
    return 2 * text_bytes(rates, length) + rates.vector_bytes[dtype]


def limits(rates: Rates, length: Length, assumed: Assumptions, workers: int, per_worker: float) -> Limits:
    """What `workers` reach that compute `per_worker` documents a second each."""
    gbit = 8 * traffic(rates, length, assumed.dtype) / 1e9
    return Limits(workers * per_worker, workers * assumed.node_gbit / gbit, assumed.storage_gbit / gbit)


def of_node(length: Length, assumed: Assumptions) -> float:
    """Documents a second of one node."""
    return length.documents_per_second.middle * assumed.cores_per_node


def of_gpu(length: Length, assumed: Assumptions) -> float:
    """Documents a second of one GPU, by what is given for it."""
    return (assumed.gpu_tokens_per_second or 0.0) / length.tokens


def cores_beside_gpu(rates: Rates, length: Length, assumed: Assumptions) -> dict[str, float]:
    """Cores that are busy to feed one GPU and to put away what it computes."""
    documents = of_gpu(length, assumed)
    written = documents * (4.0 * rates.dims)  # the rate is one of float32 vectors, the others are less
    return {
        "tokenising": (assumed.gpu_tokens_per_second or 0.0) / rates.tokenized_per_second.middle,
        "reading Parquet": documents * length.text_bytes / rates.read_per_second.middle,
        "writing Parquet": written / rates.written_per_second.middle,
    }
