"""The fixtures, one module per family; each has build(registry)."""

from ..registry import Registry
from . import (
    attacks,
    container_variants,
    export_fixtures,
    legacy_fixtures,
    lookalikes,
    pickle_fixtures,
    sharded_fixtures,
    torchscript_fixtures,
    zip_fixtures,
)


def build(registry: Registry) -> None:
    for family in (
        zip_fixtures,
        container_variants,
        legacy_fixtures,
        pickle_fixtures,
        torchscript_fixtures,
        export_fixtures,
        sharded_fixtures,
        lookalikes,
        attacks,
    ):
        family.build(registry)
