import pytest

from ulsdram_core.demo import DemoConfig, DemoProduct, generate


@pytest.fixture(scope="session")
def products() -> list[DemoProduct]:
    return list(generate(DemoConfig(num_products=300, picture_size=48)))


@pytest.fixture(scope="session", params=["en", "zh"])
def listings(request: pytest.FixtureRequest) -> list[DemoProduct]:
    """Texts alone, in each language."""
    return list(
        generate(DemoConfig(num_products=1_500, language=request.param, with_pictures=False))
    )
