// What infinirt gained by release 2026-08: memory queries, byte fills, event times, graph capture.

#include "qwen3_api_table.hpp"

#if QWEN3_RELEASE_2026_08

#include <chrono>
#include <cstring>
#include <fstream>
#include <string>

#include "device_memory.hpp"
#include "infinirt.h"
#include "status.hpp"

using namespace qwen3::infinicore;

namespace {

using Clock = std::chrono::steady_clock;

// Free and total bytes of the machine; emulated devices share them.
infiniStatus_t memory_of_machine(size_t* free_bytes, size_t* total_bytes) {
  *free_bytes = 0;
  *total_bytes = 0;
  std::ifstream meminfo("/proc/meminfo");
  std::string label;
  size_t kibibytes = 0;
  while (meminfo >> label >> kibibytes) {
    if (label == "MemTotal:") {
      *total_bytes = kibibytes * 1024;
    } else if (label == "MemAvailable:") {
      *free_bytes = kibibytes * 1024;
    }
    meminfo.ignore(64, '\n');
  }
  return *total_bytes > 0 ? kSuccess : INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;
}

infiniStatus_t fill(const char* function, void* pointer, int value, size_t count) {
  return guarded([&]() -> infiniStatus_t {
    QWEN3_TRY(refusal(function, thread_device().type));
    void* address = nullptr;
    const Extent extent{0, static_cast<std::ptrdiff_t>(count)};
    QWEN3_TRY(resolve(thread_device(), pointer, extent, function, &address));
    if (count > 0) {
      std::memset(address, value, count);
    }
    return kSuccess;
  });
}

// Nothing here captures graphs: devices that do are emulated without.
infiniStatus_t no_graphs() { return INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED; }

}  // namespace

infiniStatus_t infinirtGetMemInfo(infiniDevice_t device, int, size_t* free_bytes,
                                  size_t* total_bytes) {
  return guarded([&]() -> infiniStatus_t {
    if (free_bytes == nullptr || total_bytes == nullptr) {
      return null_argument("infinirtGetMemInfo");
    }
    QWEN3_TRY(refusal("infinirtGetMemInfo", device));
    return memory_of_machine(free_bytes, total_bytes);
  });
}

infiniStatus_t infinirtGetDeviceResourceSnapshot(infiniDevice_t device, int device_id,
                                                 infinirtDeviceResourceSnapshot_t* snapshot) {
  return guarded([&]() -> infiniStatus_t {
    if (snapshot == nullptr) {
      return null_argument("infinirtGetDeviceResourceSnapshot");
    }
    QWEN3_TRY(refusal("infinirtGetDeviceResourceSnapshot", device));
    *snapshot = {};
    snapshot->device_type = device;
    snapshot->device_id = device_id;
    QWEN3_TRY(memory_of_machine(&snapshot->free_bytes, &snapshot->total_bytes));
    snapshot->used_bytes = snapshot->total_bytes - snapshot->free_bytes;
    snapshot->valid_fields = INFINIRT_RESOURCE_FIELD_MEMORY_CAPACITY;
    return kSuccess;
  });
}

infiniStatus_t infinirtEventCreateWithFlags(infinirtEvent_t* event_ptr, uint32_t) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  return infinirtEventCreate(event_ptr);
}

infiniStatus_t infinirtEventElapsedTime(float* ms_ptr, infinirtEvent_t start, infinirtEvent_t end) {
  QWEN3_TRY(refusal(__func__, thread_device().type));
  if (ms_ptr == nullptr || start == nullptr || end == nullptr) {
    return null_argument(__func__);
  }
  const auto elapsed =
      *static_cast<const Clock::time_point*>(end) - *static_cast<const Clock::time_point*>(start);
  *ms_ptr = std::chrono::duration<float, std::milli>(elapsed).count();
  return kSuccess;
}

infiniStatus_t infinirtMemset(void* ptr, int value, size_t count) {
  return fill(__func__, ptr, value, count);
}

infiniStatus_t infinirtMemsetAsync(void* ptr, int value, size_t count, infinirtStream_t stream) {
  if (!is_stream_of(thread_device(), stream)) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: not a stream of this device", __func__);
  }
  return fill(__func__, ptr, value, count);
}

infiniStatus_t infinirtStreamBeginCapture(infinirtStream_t, infinirtStreamCaptureMode_t mode) {
  return mode <= INFINIRT_STREAM_CAPTURE_MODE_RELAXED ? no_graphs() : INFINI_STATUS_BAD_PARAM;
}

infiniStatus_t infinirtStreamEndCapture(infinirtStream_t, infinirtGraph_t*) { return no_graphs(); }

infiniStatus_t infinirtGraphDestroy(infinirtGraph_t) { return no_graphs(); }

infiniStatus_t infinirtGraphInstantiate(infinirtGraphExec_t*, infinirtGraph_t, infinirtGraphNode_t*,
                                        char*, size_t) {
  return no_graphs();
}

infiniStatus_t infinirtGraphExecDestroy(infinirtGraphExec_t) { return no_graphs(); }

infiniStatus_t infinirtGraphLuanch(infinirtGraphExec_t, infinirtStream_t) { return no_graphs(); }

#endif  // QWEN3_RELEASE_2026_08
