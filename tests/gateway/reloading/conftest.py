"""What the tests of reloading share with those of the router: a small router, trained in no time."""

from tests.router.conftest import tiny_router as tiny_router
