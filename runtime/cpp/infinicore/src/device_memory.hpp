// Memory and streams of emulated devices.
//
// An address handed out carries a tag in its upper 16 bits that no user address has on x86-64 or
// ARM64: host code that uses it faults. The tag names the device type.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "devices.hpp"

namespace qwen3::infinicore {

class DeviceMemory {
 public:
  static DeviceMemory& instance();

  infiniStatus_t set_device_count(infiniDevice_t type, int count);
  int device_count(infiniDevice_t type) const;

  infiniStatus_t allocate(const DeviceId& device, std::size_t size, void** pointer);
  infiniStatus_t release(const DeviceId& device, void* pointer);
  infiniStatus_t resolve(const DeviceId& device, const void* pointer, const Extent& extent,
                         const char* what, void** address) const;
  std::size_t live_bytes() const;

  infiniStatus_t create_stream(const DeviceId& device, void** stream);
  infiniStatus_t destroy_stream(const DeviceId& device, void* stream);
  bool owns_stream(const DeviceId& device, const void* stream) const;

  // Whether an address was handed out by an emulated device, live or not.
  static bool is_tagged(const void* pointer);

 private:
  struct Release {
    void operator()(void* pointer) const;
  };

  struct Block {
    std::unique_ptr<void, Release> data;
    std::size_t size;
    DeviceId device;
  };

  mutable std::mutex mutex_;
  std::array<int, INFINI_DEVICE_TYPE_COUNT> counts_{};  // by device type
  std::map<std::uintptr_t, Block> blocks_;              // by untagged address
  std::map<std::uintptr_t, DeviceId> streams_;
  std::uintptr_t next_stream_ = 1;
  std::size_t live_bytes_ = 0;
};

// The calling thread's device, to be changed by infinirt only.
DeviceId& thread_device();

}  // namespace qwen3::infinicore
