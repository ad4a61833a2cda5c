"""infinirt: devices belong to threads, memory and copies are checked."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from tests.infinicore.abi import (
    DEVICE_TYPE_NOT_SUPPORTED,
    H2H,
    NOT_IMPLEMENTED,
    NULL_POINTER,
    SUCCESS,
)

pytestmark = pytest.mark.compile


def current(library) -> tuple[int, int]:
    kind, index = ctypes.c_int(), ctypes.c_int()
    assert library.rt.infinirtGetDevice(ctypes.byref(kind), ctypes.byref(index)) == SUCCESS
    return kind.value, index.value


def test_devices_are_counted(any_release):
    rt, devices = any_release.rt, any_release.api.devices
    counts = (ctypes.c_int * (max(devices.values()) + 1))(*[7] * (max(devices.values()) + 1))
    assert rt.infinirtInit() == SUCCESS
    assert rt.infinirtGetAllDeviceCount(counts) == SUCCESS
    assert list(counts) == [1] + [0] * (len(counts) - 1)
    assert rt.infinirtGetAllDeviceCount(None) == NULL_POINTER
    count = ctypes.c_int(7)
    assert rt.infinirtGetDeviceCount(devices["kunlun"], ctypes.byref(count)) == SUCCESS
    assert count.value == 0
    assert rt.infinirtGetDeviceCount(99, ctypes.byref(count)) == DEVICE_TYPE_NOT_SUPPORTED
    assert rt.infinirtGetDeviceCount(0, None) == NULL_POINTER


def test_a_failed_choice_of_device_still_changes_it(any_release):
    assert any_release.set_device("nvidia", 2) == DEVICE_TYPE_NOT_SUPPORTED
    assert current(any_release) == (1, 2)
    assert any_release.rt.infinirtDeviceSynchronize() == DEVICE_TYPE_NOT_SUPPORTED
    pointer = ctypes.c_void_p()
    size = ctypes.c_size_t(8)
    status = any_release.rt.infinirtMalloc(ctypes.byref(pointer), size)
    assert status == DEVICE_TYPE_NOT_SUPPORTED
    assert any_release.set_device("cpu", 3) == SUCCESS
    assert any_release.rt.infinirtDeviceSynchronize() == SUCCESS


def test_the_device_belongs_to_the_thread(any_release):
    any_release.set_device("nvidia", 1)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(current(any_release)))
    thread.start()
    thread.join()
    assert seen == [(0, 0)]
    assert current(any_release) == (1, 1)


def test_get_device_takes_one_pointer(any_release):
    kind = ctypes.c_int(9)
    assert any_release.rt.infinirtGetDevice(ctypes.byref(kind), None) == SUCCESS
    assert kind.value == 0
    assert any_release.rt.infinirtGetDevice(None, None) == NULL_POINTER


def test_memory_and_copies(any_release):
    source = np.arange(100, dtype=np.int32)
    pointer = any_release.malloc(source.nbytes)
    assert any_release.memcpy(pointer, source.ctypes.data, source.nbytes, H2H) == SUCCESS
    back = np.zeros_like(source)
    assert any_release.memcpy(back.ctypes.data, pointer, source.nbytes, H2H) == SUCCESS
    np.testing.assert_array_equal(back, source)
    assert any_release.memcpy(0, pointer, 4, H2H) == NULL_POINTER
    assert any_release.memcpy(0, 0, 0, H2H) == SUCCESS
    any_release.free(pointer)
    assert any_release.rt.infinirtFree(None) == SUCCESS
    assert any_release.rt.infinirtMalloc(None, ctypes.c_size_t(8)) == NULL_POINTER


def test_memory_that_cannot_be_had_is_an_error(any_release):
    pointer = ctypes.c_void_p(5)
    status = any_release.rt.infinirtMalloc(ctypes.byref(pointer), ctypes.c_size_t(1 << 62))
    assert status not in (SUCCESS, NULL_POINTER)


def test_streams_of_the_cpu_are_null(any_release):
    rt = any_release.rt
    stream = ctypes.c_void_p(5)
    assert rt.infinirtStreamCreate(ctypes.byref(stream)) == SUCCESS
    assert stream.value is None
    assert rt.infinirtStreamSynchronize(stream) == SUCCESS
    assert rt.infinirtStreamDestroy(stream) == SUCCESS
    assert rt.infinirtStreamWaitEvent(stream, None) == NOT_IMPLEMENTED


def test_events_came_with_2026(any_release):
    rt = any_release.rt
    event = ctypes.c_void_p()
    expected = SUCCESS if any_release.api.release == "2026-08" else NOT_IMPLEMENTED
    assert rt.infinirtEventCreate(ctypes.byref(event)) == expected
    if expected == SUCCESS:
        later = ctypes.c_void_p()
        state, milliseconds = ctypes.c_int(9), ctypes.c_float(-1)
        assert rt.infinirtEventCreate(ctypes.byref(later)) == SUCCESS
        assert rt.infinirtEventRecord(later, None) == SUCCESS
        assert rt.infinirtEventQuery(later, ctypes.byref(state)) == SUCCESS
        assert state.value == 0
        elapsed = rt.infinirtEventElapsedTime
        assert elapsed(ctypes.byref(milliseconds), event, later) == SUCCESS
        assert 0 <= milliseconds.value < 60000
        assert rt.infinirtEventDestroy(later) == SUCCESS
        assert rt.infinirtEventDestroy(event) == SUCCESS


def test_fills_and_memory_queries(library):
    rt = library.rt
    buffer = np.zeros(10, np.uint8)
    address = ctypes.c_void_p(buffer.ctypes.data + 2)
    assert rt.infinirtMemset(address, 7, ctypes.c_size_t(5)) == SUCCESS
    assert buffer.tolist() == [0, 0, 7, 7, 7, 7, 7, 0, 0, 0]
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert rt.infinirtGetMemInfo(0, 0, ctypes.byref(free), ctypes.byref(total)) == SUCCESS
    assert 0 < free.value <= total.value
    assert rt.infinirtGetMemInfo(0, 0, None, None) == NULL_POINTER
    graph = ctypes.c_void_p()
    assert rt.infinirtStreamBeginCapture(None, 0) == DEVICE_TYPE_NOT_SUPPORTED
    assert rt.infinirtStreamEndCapture(None, ctypes.byref(graph)) == DEVICE_TYPE_NOT_SUPPORTED
