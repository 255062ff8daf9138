from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.load import Load, read_load

# As vLLM 0.32 writes them, less most of the others.
VLLM = b"""\
# HELP python_info Python platform information.
process_start_time_seconds 1.76443e+09
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="smollm2"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="smollm2"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="smollm2",reason="capacity"} 40.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="smollm2",reason="deferred"} 50.0
vllm:kv_cache_usage_perc{engine="0",model_name="smollm2"} 0.25
vllm:num_requests_running_total 77
"""


def test_what_a_vllm_server_says() -> None:
    assert read_load(VLLM) == Load(running=3, waiting=2, cache=0.25, process=1.76443e9)


def test_the_engines_of_a_data_parallel_server_are_added_up_and_their_caches_averaged() -> None:
    text = b"".join(
        b'vllm:num_requests_running{engine="%d"} %d\nvllm:num_requests_waiting{engine="%d"} 1\n'
        b'vllm:kv_cache_usage_perc{engine="%d"} %f\n' % (i, i + 1, i, i, i / 2)
        for i in range(3)
    )
    assert read_load(text) == Load(running=6, waiting=3, cache=0.5)


def test_an_older_server_names_its_cache_otherwise() -> None:
    assert read_load(VLLM.replace(b"kv_cache", b"gpu_cache")) == Load(3, 2, 0.25, 1.76443e9)


def test_a_label_may_hold_braces_and_blanks_and_a_line_a_timestamp() -> None:
    text = b'vllm:num_requests_running{model_name="a } 9 \\" b"} 5 1395066363000\n'
    assert read_load(text) == Load(running=5, waiting=0)


@pytest.mark.parametrize("text", [
    b"", b"llamacpp:requests_processing 1\n", b"# vllm:num_requests_running 3\n", b"x_vllm:num_requests_running 3\n",
    b"vllm:num_requests_waiting 3\n", b"vllm:num_requests_running NaN\n", b"vllm:num_requests_running -1\n",
    b"vllm:num_requests_running +Inf\n", b"vllm:num_requests_running x\n", b"<html>502</html>", b"\xff\xfe\x00",
])  # fmt: skip
def test_what_is_no_load_is_none(text: bytes) -> None:
    assert read_load(text) is None


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1))
def test_any_gauge_is_read_as_it_was_written(running: float, waiting: float, cache: float) -> None:
    text = (
        f"vllm:num_requests_running {running!r}\nvllm:num_requests_waiting {waiting!r}\n"
        f"vllm:kv_cache_usage_perc {cache!r}\n"
    )
    assert read_load(text.encode()) == Load(running, waiting, cache)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(noise: bytes) -> None:
    read_load(noise)
    load = read_load(noise + b"\n" + VLLM)
    assert load is not None
    assert load.running >= 3
