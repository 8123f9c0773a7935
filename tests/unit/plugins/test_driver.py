# SPDX-License-Identifier: Apache-2.0
"""_driver: a driver that is too old for an image, or known to be bad for a GPU, is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from resolving import CATALOG, GPU_PLACE, HOST, SPARK

from ansible_collections.hearth.spark.plugins.module_utils import _complete, _driver, _resolve


@pytest.mark.parametrize(
    ("wanted", "driver"),
    [
        pytest.param("580", "580.178.04", id="the branch"),
        pytest.param("580.95", "580.178.04", id="a version of the branch"),
        pytest.param("570", "580.95.05", id="a later branch"),
        pytest.param("580", "", id="nobody knows the driver"),
        pytest.param(None, "470.256.02", id="nobody knows what the image wants"),
    ],
)
def test_a_driver_that_goes_with_the_image(wanted: str | None, driver: str) -> None:
    assert _driver.refusal("vllm", {"min_driver": wanted}, driver, "NVIDIA GB10") == ""


@pytest.mark.parametrize(("wanted", "driver"), [("580", "570.211.01"), ("580.95", "580.82.07"), ("1000", "999.1")])
def test_a_driver_that_is_too_old_is_named_with_what_is_wanted(wanted: str, driver: str) -> None:
    said = _driver.refusal("vllm", {"min_driver": wanted}, driver, "NVIDIA GB10")

    assert said == (
        f"vllm wants NVIDIA's driver {wanted} or newer, and this host has {driver}: update the driver, or name another "
        "image"
    )


def test_a_branch_that_is_bad_for_a_gpu_is_refused_there_only() -> None:
    said = _driver.refusal("vllm", {"min_driver": None}, "590.48.01", "NVIDIA GB10")

    assert said.startswith("vllm would run with NVIDIA's driver 590.48.01, and with 590 on GB10 engines stand still")
    assert _driver.refusal("vllm", {"min_driver": None}, "590.48.01", "NVIDIA L4") == ""


def resolved(driver: str, *, gpu: bool = True, **fields: Any) -> list[_resolve.Resolved]:
    known = _complete.Machine(
        total_gib=SPARK.total_gib,
        floor_gib=SPARK.floor_gib,
        arch="aarch64",
        gpu=gpu,
        gpu_name="NVIDIA GB10",
        driver=driver,
    )
    models = {"small": {"download": "never", **fields}}
    images = {"llama": {"min_driver": "580"}}
    return _resolve.resolve(models, images, CATALOG, known if gpu else HOST, GPU_PLACE)


def test_a_model_whose_image_does_not_go_with_the_driver_is_refused_with_the_field() -> None:
    with pytest.raises(_complete.ResolveError, match=r"^engines_models\.small\.image: llama wants NVIDIA's driver 580"):
        resolved("570.211.01")


def test_a_model_that_is_forced_is_not_refused() -> None:
    assert resolved("590.48.01", force=True)


def test_without_a_gpu_no_driver_is_looked_at() -> None:
    assert resolved("570.211.01", gpu=False)
