// infinirt: devices, memory, copies, streams and events.

#include "infinirt.h"

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "device_memory.hpp"
#include "qwen3_api_table.hpp"
#include "status.hpp"

using namespace qwen3::infinicore;

namespace {

using Clock = std::chrono::steady_clock;

bool is_cpu() { return thread_device().type == INFINI_DEVICE_CPU; }

infiniStatus_t check_stream(const char* function, const void* stream) {
  if (is_stream_of(thread_device(), stream)) {
    return kSuccess;
  }
  return fail(INFINI_STATUS_BAD_PARAM, "%s: not a stream of this device", function);
}

infiniStatus_t allocate(const char* function, void** pointer, std::size_t size, bool on_host) {
  return guarded([&]() -> infiniStatus_t {
    QWEN3_TRY(refusal(function, thread_device().type));
    if (pointer == nullptr) {
      return null_argument(function);
    }
    if (!on_host && !is_cpu()) {
      return DeviceMemory::instance().allocate(thread_device(), size, pointer);
    }
    *pointer = std::malloc(size > 0 ? size : 1);
    if (*pointer == nullptr) {
      return fail(INFINI_STATUS_INTERNAL_ERROR, "%s: no memory for %zu bytes", function, size);
    }
    return kSuccess;
  });
}

infiniStatus_t release(const char* function, void* pointer, bool on_host) {
  return guarded([&]() -> infiniStatus_t {
    QWEN3_TRY(refusal(function, thread_device().type));
    if (!on_host && !is_cpu()) {
      return DeviceMemory::instance().release(thread_device(), pointer);
    }
    if (DeviceMemory::is_tagged(pointer)) {
      return fail(INFINI_STATUS_BAD_PARAM, "%s: %p is memory of a device", function, pointer);
    }
    std::free(pointer);
    return kSuccess;
  });
}

// One end of a copy: a host address as it is, a device address checked and untagged.
infiniStatus_t copy_address(const char* function, const void* pointer, std::size_t size,
                            bool on_device, void** address) {
  const Extent extent{0, static_cast<std::ptrdiff_t>(size)};
  if (on_device) {
    return resolve(thread_device(), pointer, extent, function, address);
  }
  if (DeviceMemory::is_tagged(pointer)) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: device address %p on the host side", function,
                pointer);
  }
  return resolve(DeviceId{}, pointer, extent, function, address);
}

infiniStatus_t copy(const char* function, void* dst, const void* src, std::size_t size,
                    infinirtMemcpyKind_t kind) {
  return guarded([&]() -> infiniStatus_t {
    QWEN3_TRY(refusal(function, thread_device().type));
    const bool to_device = kind == INFINIRT_MEMCPY_H2D || kind == INFINIRT_MEMCPY_D2D;
    const bool from_device = kind == INFINIRT_MEMCPY_D2H || kind == INFINIRT_MEMCPY_D2D;
    void* target = nullptr;
    void* source = nullptr;
    QWEN3_TRY(copy_address(function, dst, size, to_device, &target));
    QWEN3_TRY(copy_address(function, src, size, from_device, &source));
    if (size > 0) {
      std::memmove(target, source, size);
    }
    return kSuccess;
  });
}

}  // namespace

infiniStatus_t infinirtInit(void) { return kSuccess; }

infiniStatus_t infinirtGetAllDeviceCount(int* count_array) {
  return guarded([&] {
    if (count_array == nullptr) {
      return null_argument("infinirtGetAllDeviceCount");
    }
    for (int type = 0; type < INFINI_DEVICE_TYPE_COUNT; ++type) {
      count_array[type] = device_count(static_cast<infiniDevice_t>(type));
    }
    return kSuccess;
  });
}

infiniStatus_t infinirtGetDeviceCount(infiniDevice_t device, int* count) {
  return guarded([&] {
    if (count == nullptr) {
      return null_argument("infinirtGetDeviceCount");
    }
    if (device_name(device) == nullptr) {
      return INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;
    }
    *count = device_count(device);
    return kSuccess;
  });
}

// A failing call changes the thread's device all the same, as the real library does.
infiniStatus_t infinirtSetDevice(infiniDevice_t device, int device_id) {
  return guarded([&] {
    thread_device() = DeviceId{device, device_id};
    if (device == INFINI_DEVICE_CPU) {
      return kSuccess;
    }
    const int count = device_count(device);
    if (count == 0) {
      return INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;
    }
    return device_id >= 0 && device_id < count ? kSuccess : INFINI_STATUS_DEVICE_NOT_FOUND;
  });
}

infiniStatus_t infinirtGetDevice(infiniDevice_t* device_ptr, int* device_id_ptr) {
  if (device_ptr == nullptr && device_id_ptr == nullptr) {
    return null_argument(__func__);
  }
  if (device_ptr != nullptr) {
    *device_ptr = thread_device().type;
  }
  if (device_id_ptr != nullptr) {
    *device_id_ptr = thread_device().index;
  }
  return kSuccess;
}

infiniStatus_t infinirtDeviceSynchronize(void) { return refusal(__func__, thread_device().type); }

infiniStatus_t infinirtStreamCreate(infinirtStream_t* stream_ptr) {
  return guarded([&]() -> infiniStatus_t {
    QWEN3_TRY(refusal("infinirtStreamCreate", thread_device().type));
    if (stream_ptr == nullptr) {
      return null_argument("infinirtStreamCreate");
    }
    if (is_cpu()) {
      *stream_ptr = nullptr;
      return kSuccess;
    }
    return DeviceMemory::instance().create_stream(thread_device(), stream_ptr);
  });
}

infiniStatus_t infinirtStreamDestroy(infinirtStream_t stream) {
  return guarded([&]() -> infiniStatus_t {
    QWEN3_TRY(refusal("infinirtStreamDestroy", thread_device().type));
    return is_cpu() ? kSuccess : DeviceMemory::instance().destroy_stream(thread_device(), stream);
  });
}

infiniStatus_t infinirtStreamSynchronize(infinirtStream_t stream) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  return check_stream(__func__, stream);
}

infiniStatus_t infinirtStreamWaitEvent(infinirtStream_t stream, infinirtEvent_t event) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  QWEN3_TRY(check_stream(__func__, stream));
  return event == nullptr ? null_argument(__func__) : kSuccess;
}

// Work is done when a call returns, so an event is the time of its recording.
infiniStatus_t infinirtEventCreate(infinirtEvent_t* event_ptr) {
  return guarded([&]() -> infiniStatus_t {
    QWEN3_TRY(refusal("infinirtEventCreate", thread_device().type));
    if (event_ptr == nullptr) {
      return null_argument("infinirtEventCreate");
    }
    *event_ptr = new Clock::time_point(Clock::now());
    return kSuccess;
  });
}

infiniStatus_t infinirtEventRecord(infinirtEvent_t event, infinirtStream_t stream) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  QWEN3_TRY(check_stream(__func__, stream));
  if (event == nullptr) {
    return null_argument(__func__);
  }
  *static_cast<Clock::time_point*>(event) = Clock::now();
  return kSuccess;
}

infiniStatus_t infinirtEventQuery(infinirtEvent_t event, infinirtEventStatus_t* status_ptr) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  if (event == nullptr || status_ptr == nullptr) {
    return null_argument(__func__);
  }
  *status_ptr = INFINIRT_EVENT_COMPLETE;
  return kSuccess;
}

infiniStatus_t infinirtEventSynchronize(infinirtEvent_t event) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  return event == nullptr ? null_argument(__func__) : kSuccess;
}

infiniStatus_t infinirtEventDestroy(infinirtEvent_t event) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  delete static_cast<Clock::time_point*>(event);
  return kSuccess;
}

infiniStatus_t infinirtMalloc(void** p_ptr, size_t size) {
  return allocate(__func__, p_ptr, size, false);
}

infiniStatus_t infinirtMallocHost(void** p_ptr, size_t size) {
  return allocate(__func__, p_ptr, size, true);
}

infiniStatus_t infinirtFree(void* ptr) { return release(__func__, ptr, false); }

infiniStatus_t infinirtFreeHost(void* ptr) { return release(__func__, ptr, true); }

infiniStatus_t infinirtMemcpy(void* dst, const void* src, size_t size, infinirtMemcpyKind_t kind) {
  return copy(__func__, dst, src, size, kind);
}

infiniStatus_t infinirtMemcpyAsync(void* dst, const void* src, size_t size,
                                   infinirtMemcpyKind_t kind, infinirtStream_t stream) {
  QWEN3_TRY(check_stream(__func__, stream));
  return copy(__func__, dst, src, size, kind);
}

infiniStatus_t infinirtMallocAsync(void** p_ptr, size_t size, infinirtStream_t stream) {
  QWEN3_TRY(check_stream(__func__, stream));
  return allocate(__func__, p_ptr, size, false);
}

infiniStatus_t infinirtFreeAsync(void* ptr, infinirtStream_t stream) {
  QWEN3_TRY(check_stream(__func__, stream));
  return release(__func__, ptr, false);
}
