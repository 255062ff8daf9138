"""Routing tests: what routes.test.yaml says of where prompts have to go, and whether a router sends them there."""

from router.routetests.file import RouteTest, RouteTests, beside, parse_route_tests, read_route_tests
from router.routetests.run import Result, run_route_tests

__all__ = ["Result", "RouteTest", "RouteTests", "beside", "parse_route_tests", "read_route_tests", "run_route_tests"]
