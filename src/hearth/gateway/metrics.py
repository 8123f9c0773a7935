# SPDX-License-Identifier: Apache-2.0
"""What the gateway counts, for Prometheus, and the engines' own metrics beside it with a label ``model``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()
# Seconds: a warm request waits for nothing, a large model takes minutes to load.
_WAITS = (0.01, 0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)


class _Use:
    """What one key has had of one model: requests by status, bytes of bodies, tokens."""

    __slots__ = ("bytes_in", "bytes_out", "codes", "completion", "prompt")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.bytes_in = self.bytes_out = self.prompt = self.completion = 0


class Metrics:
    """The gateway's own figures. Names of keys are labels, never keys."""

    def __init__(self) -> None:
        # A second series for each, with the time of its first value, is of no use here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        # Counted with every request, so in plain numbers, at a tenth of a Counter's cost; collected when somebody asks.
        self._uses: dict[tuple[str, str], _Use] = {}
        self.registry.register(self)
        self._waits = Histogram(
            "hearth_wait_seconds",
            "How long those waited for their turn whose engine was not ready, whether they got it or not.",
            ("model",),
            buckets=_WAITS,
            registry=self.registry,
        )
        self._loads = Histogram(
            "hearth_load_seconds",
            "Good loads, until the engine was ready.",
            ("model",),
            buckets=_WAITS,
            registry=self.registry,
        )
        self._failures = Counter(
            "hearth_load_failures", "Loads that failed.", ("model", "kind"), registry=self.registry
        )
        self._switches = Counter(
            "hearth_switches", "Starts for which other engines were stopped.", registry=self.registry
        )
        self.in_flight = Gauge("hearth_in_flight", "Requests at an engine.", ("model",), registry=self.registry)
        self.waiting = Gauge("hearth_waiting", "Requests that wait for an engine.", ("model",), registry=self.registry)
        self.up = Gauge("hearth_engine_ready", "1 where the engine is ready.", ("model",), registry=self.registry)
        self.available = Gauge("hearth_memory_available_bytes", "MemAvailable of the box.", registry=self.registry)

    def _use(self, model: str, key: str) -> _Use:
        use = self._uses.get((model, key))
        if use is None:
            use = self._uses[model, key] = _Use()
        return use

    def collect(self) -> Iterator[Metric]:
        """What was counted in plain numbers, as prometheus_client wants it."""
        requests = CounterMetricFamily(
            "hearth_requests",
            "Requests answered, by HTTP status (499: the client left).",
            labels=("model", "key", "code"),
        )
        moved = CounterMetricFamily("hearth_bytes", "Bytes of bodies.", labels=("model", "key", "direction"))
        tokens = CounterMetricFamily(
            "hearth_tokens", "Tokens, where the engine says them.", labels=("model", "key", "kind")
        )
        for (model, key), use in self._uses.items():
            for code, count in use.codes.items():
                requests.add_metric((model, key, str(code)), count)
            moved.add_metric((model, key, "in"), use.bytes_in)
            moved.add_metric((model, key, "out"), use.bytes_out)
            tokens.add_metric((model, key, "prompt"), use.prompt)
            tokens.add_metric((model, key, "completion"), use.completion)
        yield from (requests, moved, tokens)

    def answered(self, model: str, key: str, code: int, bytes_in: int, bytes_out: int) -> None:
        """A request came to its end."""
        use = self._use(model, key)
        use.codes[code] = use.codes.get(code, 0) + 1
        use.bytes_in += bytes_in
        use.bytes_out += bytes_out

    def used(self, model: str, key: str, prompt: int, completion: int) -> None:
        """Tokens, as the engine counted them."""
        use = self._use(model, key)
        use.prompt += prompt
        use.completion += completion

    def waited(self, model: str, seconds: float) -> None:
        """How long a request waited for its turn, in seconds."""
        self._waits.labels(model).observe(seconds)

    def loaded(self, model: str, seconds: float) -> None:
        self._loads.labels(model).observe(seconds)

    def load_failed(self, model: str, kind: str) -> None:
        self._failures.labels(model, kind).inc()

    def switched(self) -> None:
        self._switches.inc()

    def page(self, engines: Mapping[str, str]) -> bytes:
        """The page of metrics; ``engines`` has the pages of the engines, by model."""
        return generate_latest(self.registry) + relabelled(engines).encode()


_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?([ \t].+)")
_MODEL = re.compile(r"(^|,)\s*model=")


def relabelled(pages: Mapping[str, str]) -> str:
    """The engines' pages as one: each sample with the label ``model``, each family's head once.

    An engine's own label of that name becomes ``exported_model``, as Prometheus has it. The names stay as they are,
    which prometheus_client's parser would change for counters that do not end in "_total".
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for model, page in pages.items():
        family = ""
        begun: set[str] = set()
        for line in page.splitlines():
            words = line.split(maxsplit=3)
            if line.startswith("#"):
                if len(words) > 2 and words[1] in {"HELP", "TYPE"}:
                    family = words[2]
                    if family not in begun and family not in heads:
                        begun.add(family)
                        heads[family] = []
                    if family in begun:
                        heads[family].append(line)
            elif found := _SAMPLE.fullmatch(line):
                name, labels, rest = found.groups()
                labels = _MODEL.sub(r"\1exported_model=", labels.rstrip(",")) + "," if labels else ""
                of = family if family and name.startswith(family) else name
                samples.setdefault(of, []).append(f'{name}{{{labels}model="{model}"}}{rest}')
    lines = (line for family, given in samples.items() for line in (*heads.get(family, ()), *given))
    return "".join(f"{line}\n" for line in lines)
