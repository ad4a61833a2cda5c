#include "devices.hpp"

#include <cstring>
#include <string_view>

#include "device_memory.hpp"
#include "qwen3_api_table.hpp"
#include "qwen3_emulation.h"
#include "status.hpp"

namespace qwen3::infinicore {

#ifdef QWEN3_EXPECTED_RELEASE
static_assert(std::string_view(kRelease) == QWEN3_EXPECTED_RELEASE,
              "QWEN3_INFINICORE_HEADERS are of another release than QWEN3_INFINICORE_RELEASE");
#endif

DeviceId& thread_device() {
  thread_local DeviceId device;
  return device;
}

DeviceId current_device() { return thread_device(); }

const char* device_name(infiniDevice_t type) {
  for (const NamedDevice& device : kDevices) {
    if (device.type == type) {
      return device.name;
    }
  }
  return nullptr;
}

int device_count(infiniDevice_t type) {
  return type == INFINI_DEVICE_CPU ? 1 : DeviceMemory::instance().device_count(type);
}

infiniStatus_t refusal(const char* function, infiniDevice_t type) {
  if (device_count(type) == 0) {
    return INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;
  }
  for (const Refusal& entry : kRefusals) {
    if (entry.device == type && std::strcmp(entry.function, function) == 0) {
      return entry.status;
    }
  }
  return kSuccess;
}

infiniStatus_t resolve(const DeviceId& device, const void* pointer, const Extent& extent,
                       const char* what, void** address) {
  if (extent.empty()) {
    *address = nullptr;
    return kSuccess;
  }
  if (pointer == nullptr) {
    return fail(INFINI_STATUS_NULL_POINTER, "%s: NULL data pointer", what);
  }
  if (device.type == INFINI_DEVICE_CPU) {
    *address = const_cast<void*>(pointer);
    return kSuccess;
  }
  return DeviceMemory::instance().resolve(device, pointer, extent, what, address);
}

bool is_stream_of(const DeviceId& device, const void* stream) {
  return device.type == INFINI_DEVICE_CPU || stream == nullptr ||
         DeviceMemory::instance().owns_stream(device, stream);
}

}  // namespace qwen3::infinicore

using namespace qwen3::infinicore;

infiniStatus_t qwen3_infinicore_emulate(infiniDevice_t device, int count) {
  return guarded([&] {
    if (device == INFINI_DEVICE_CPU || count < 0) {
      return fail(INFINI_STATUS_BAD_PARAM, "emulation: not a device to emulate, or a bad count");
    }
    if (device_name(device) == nullptr) {
      return fail(INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED,
                  "emulation: API release %s has no device type %d", kRelease,
                  static_cast<int>(device));
    }
    return DeviceMemory::instance().set_device_count(device, count);
  });
}

size_t qwen3_infinicore_emulated_bytes(void) { return DeviceMemory::instance().live_bytes(); }
